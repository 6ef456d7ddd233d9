// The demo model and a text, for tests that need one.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace kvant {

/// KVANT_MODEL, or the demo model in the project or beside it; empty: there is none.
inline std::string TestModel() {
  const std::string root = KVANT_SOURCE_DIR;
  const char* given = std::getenv("KVANT_MODEL");
  for (const std::string& path : {std::string(given ? given : ""), root + "/models/demo-29m/demo-29m-q8_0.gguf",
                                  root + "/../shared/models/demo-29m/demo-29m-q8_0.gguf"}) {
    if (std::filesystem::is_regular_file(path)) return path;
  }
  return "";
}

/// Some English, and the same words on every machine.
inline std::string TestText() {
  std::ifstream file(std::string(KVANT_SOURCE_DIR) + "/LICENSE");
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace kvant

/// Skips the test unless a model is at hand.
#define KVANT_NEED_MODEL() \
  if (::kvant::TestModel().empty()) GTEST_SKIP() << "no model: set KVANT_MODEL to a GGUF file"
