// What the tests of tasks share: a task run on the fake model.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "eval/fake_runner.h"
#include "eval/task.h"

namespace kvant::test {

inline const OpenRunner kOpenFake = FakeRunner::Open;

inline std::unique_ptr<Runner> OpenFake() {
  return *FakeRunner::Open({.model_path = "fake", .context = FakeRunner::kContextTrain});
}

inline TaskRun RunOf(const std::string& cache, const OpenRunner& open = kOpenFake) {
  return {.options = {.model_path = "fake", .cache = cache, .batch = 100},
          .open = open,
          .is_reference = cache == "f16",
          .progress = [](int64_t, int64_t) {}};
}

/// The result with this cache; null after a failure, which is reported.
inline nlohmann::json ResultOf(Task& task, const std::string& cache) {
  const Result<nlohmann::json> result = task.Run(RunOf(cache));
  EXPECT_TRUE(result.ok()) << cache << ": " << result.status().message();
  return result.ok() ? *result : nlohmann::json();
}

/// Prepares the task for the fake model.
inline Status Prepare(Task& task) { return task.Prepare(*OpenFake()); }

/// Letters that do not look like anything the fake model answers to.
inline std::string SomeText(size_t bytes) {
  std::string text;
  for (size_t i = 0; i < bytes; ++i) text += static_cast<char>(i % 7 == 6 ? ' ' : 'a' + i * i % 23);
  return text;
}

}  // namespace kvant::test
