// kvant_soak: puts the same random load on two runners of one model, the one under test and a reference, and compares their
// logits, numbers of tokens and errors after each operation. One failure ends it with exit code 1 and what led there.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <deque>
#include <optional>

#include "base/output_file.h"
#include "calibration_option.h"
#include "eval/stopwatch.h"
#include "lockstep.h"
#include "model_options.h"
#include "operation.h"
#include "tally.h"
#include "text_input.h"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kExitFailed = 1, kExitUsage = 2;
constexpr double kProgressSeconds = 30;
constexpr size_t kHistory = 20;            // operations shown after a failure
constexpr int64_t kMeanRows = 1000;        // from which on the mean is looked at while the load runs
constexpr size_t kMemorySlack = 64 << 20;  // more than at the start, in bytes, after all is forgotten

struct Options {
  ModelOptions model;
  std::string cache = "kv4";
  std::string reference_device = "cpu";
  std::string reference_cache;  // empty: cache
  int reference_threads = 0;    // 0: threads
  double seconds = 60;
  uint64_t seed = 0;
  int64_t replay = 0;  // 0: as many operations as the time allows
  int sequences = 3;
  int context = 4096;
  std::string text = KVANT_SOURCE_DIR "/LICENSE";
  std::string json;
  Limits limits;
};

void AddOptions(CLI::App& app, Options& o) {
  app.option_defaults()->always_capture_default()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  AddModelOptions(app, o.model);
  app.add_option("--cache", o.cache, "Cache under test, as for kvant run");
  app.add_option("--reference-device", o.reference_device, "Where the reference runs");
  app.add_option("--reference-cache", o.reference_cache, "The reference's cache; empty: the same");
  app.add_option("--reference-threads", o.reference_threads, "The reference's threads; 0: the same")
      ->check(CLI::Range(0, 512));
  app.add_option("--seconds", o.seconds, "How long")->check(CLI::NonNegativeNumber);
  app.add_option("--seed", o.seed, "Of the operations; 0: from the clock");
  app.add_option("--replay", o.replay, "Stop after this many operations, whatever the time; 0: after --seconds")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--sequences", o.sequences, "Sequences that the context has room for")->check(CLI::Range(1, 64));
  app.add_option("--context", o.context, "Tokens of each sequence")->check(CLI::Range(16, 1 << 24));
  app.add_option("--text", o.text, "File whose words are fed");
  app.add_option("--limit", o.limits.kl, "Most KL divergence of a single row of logits, in nats");
  app.add_option("--mean-limit", o.limits.kl_mean, "Most mean KL divergence");
  app.add_option("--json", o.json, "Also write the numbers to this file");
}

Result<Lockstep> OpenBoth(const Options& o) {
  const std::string& reference_cache = o.reference_cache.empty() ? o.cache : o.reference_cache;
  auto calibration = OpenCalibration(o.model.calibration, o.model.model, {o.cache, reference_cache});
  if (!calibration.ok()) return calibration.status();
  const RunnerOptions tested = {.model_path = o.model.model,
                                .cache = o.cache,
                                .device = o.model.device,
                                .context = o.context,
                                .threads = o.model.threads,
                                .sequences = o.sequences,
                                .memory_limit_bytes = o.model.memory_limit,
                                .maybe_calibration = *calibration};
  RunnerOptions reference = tested;
  reference.cache = reference_cache;
  reference.device = o.reference_device;
  if (o.reference_threads > 0) reference.threads = o.reference_threads;
  return Lockstep::Open(tested, reference);
}

class Soak {
 public:
  Soak(const Options& options, Lockstep lockstep, std::vector<int> text)
      : options_(options),
        lockstep_(std::move(lockstep)),
        source_(options.seed, std::move(text), options.sequences, options.context) {}

  /// Internal: the runners differ.
  Status Run();
  void PrintHistory() const;
  void PrintSummary() const;
  Json ToJson(const Status& status) const;

 private:
  bool Done() const;
  Status Step();
  Status CheckMemory() const;
  void ShowProgress();
  std::string Numbers() const;

  const Options& options_;
  Lockstep lockstep_;
  OperationSource source_;
  Tally tally_;
  std::deque<std::string> history_;
  const Stopwatch watch_;
  double shown_ = 0;
};

bool Soak::Done() const {
  return options_.replay > 0 ? tally_.operations() >= options_.replay : watch_.seconds() >= options_.seconds;
}

Status Soak::Step() {
  const Operation operation = source_.Next(lockstep_.held());
  std::string held;
  for (const int64_t tokens : lockstep_.held()) held += StrFormat(" %lld", static_cast<long long>(tokens));
  history_.push_back(StrFormat("%lld: %s (held before:%s)", static_cast<long long>(tally_.operations() + 1),
                               Describe(operation).c_str(), held.c_str()));
  if (history_.size() > kHistory) history_.pop_front();
  std::vector<double> kl;
  const Status status = lockstep_.Do(operation, &kl);
  KVANT_TRY(tally_.Add(operation.kind, kl, options_.limits));
  KVANT_TRY(status);
  return tally_.rows() < kMeanRows ? Status::Ok() : tally_.CheckMean(options_.limits);
}

Status Soak::CheckMemory() const {
  for (const auto& [name, use] :
       {std::pair("tested", lockstep_.tested_memory()), {"reference", lockstep_.reference_memory()}}) {
    if (use.end <= use.start + kMemorySlack) continue;
    return Status::Internal(
        StrFormat("memory of the %s cache: %zu bytes at the start, %zu with all forgotten", name, use.start, use.end));
  }
  return Status::Ok();
}

Status Soak::Run() {
  while (!Done()) {
    KVANT_TRY(Step());
    ShowProgress();
  }
  KVANT_TRY(tally_.CheckMean(options_.limits));
  KVANT_TRY(lockstep_.Finish());
  return CheckMemory();
}

std::string Soak::Numbers() const {
  return StrFormat("%lld operations, %lld tokens, %.0f s, ", static_cast<long long>(tally_.operations()),
                   static_cast<long long>(lockstep_.tokens()), watch_.seconds()) +
         tally_.Line();
}

void Soak::ShowProgress() {
  if (watch_.seconds() < shown_ + kProgressSeconds) return;
  shown_ = watch_.seconds();
  std::fprintf(stderr, "soak: %s\n", Numbers().c_str());
}

void Soak::PrintHistory() const {
  std::fprintf(stderr, "seed %llu, the last operations:\n", static_cast<unsigned long long>(options_.seed));
  for (const std::string& line : history_) std::fprintf(stderr, "  %s\n", line.c_str());
}

void Soak::PrintSummary() const {
  std::fputs(tally_.Table().c_str(), stdout);
  const auto memory = [](const char* name, const MemoryUse& use) {
    std::printf("memory of the %s cache: %zu bytes at the start, %zu at the most, %zu at the end\n", name, use.start,
                use.most, use.end);
  };
  memory("tested", lockstep_.tested_memory());
  memory("reference", lockstep_.reference_memory());
  std::printf("refused alike: %lld, out of memory on one side: %lld\n", static_cast<long long>(lockstep_.refused()),
              static_cast<long long>(lockstep_.one_sided()));
  std::printf("soak: %s, seed %llu\n", Numbers().c_str(), static_cast<unsigned long long>(options_.seed));
}

Json Soak::ToJson(const Status& status) const {
  const auto memory = [](const MemoryUse& use) {
    return Json{{"start", use.start}, {"most", use.most}, {"end", use.end}};
  };
  Json json = {{"format", "kvant-soak"},
               {"format_version", 1},
               {"seed", options_.seed},
               {"device", options_.model.device},
               {"cache", options_.cache},
               {"reference_device", options_.reference_device},
               {"reference_cache", options_.reference_cache.empty() ? options_.cache : options_.reference_cache},
               {"operations", tally_.operations()},
               {"tokens", lockstep_.tokens()},
               {"seconds", watch_.seconds()},
               {"refused", lockstep_.refused()},
               {"one_sided", lockstep_.one_sided()},
               {"memory_bytes",
                {{"tested", memory(lockstep_.tested_memory())}, {"reference", memory(lockstep_.reference_memory())}}},
               {"failure", status.ok() ? Json() : Json(status.message())}};
  json.update(tally_.ToJson());
  return json;
}

int Fail(const Status& status) {
  std::fprintf(stderr, "soak: error: %s\n", status.message().c_str());
  return status.code() == StatusCode::kInvalidArgument ? kExitUsage : kExitFailed;
}

int Run(const Options& o) {
  const Result<std::string> text = ReadText(o.text);
  if (!text.ok()) return Fail(text.status());
  std::optional<OutputFile> json;
  if (!o.json.empty()) {
    Result<OutputFile> file = OutputFile::Open(o.json);
    if (!file.ok()) return Fail(file.status());
    json = std::move(file).value();
  }
  Result<Lockstep> lockstep = OpenBoth(o);
  if (!lockstep.ok()) return Fail(lockstep.status());
  std::vector<int> tokens = lockstep->reference().Tokenize(*text, /*add_bos=*/false);
  if (tokens.empty()) return Fail(Status::InvalidArgument("--text " + o.text + ": has no tokens"));
  std::printf("seed %llu\n", static_cast<unsigned long long>(o.seed));
  std::fflush(stdout);

  Soak soak(o, std::move(lockstep).value(), std::move(tokens));
  const Status status = soak.Run();
  if (!status.ok()) {
    Fail(status);
    soak.PrintHistory();
  }
  soak.PrintSummary();
  if (json) {
    const Status written = json->Write(soak.ToJson(status).dump(2) + "\n");
    if (!written.ok()) return Fail(written);
  }
  return status.ok() ? 0 : kExitFailed;
}

int Main(int argc, char** argv) {
  CLI::App app("Puts the same random load on two runners of a model and compares them after each operation.",
               "kvant_soak");
  Options options;
  AddOptions(app, options);
  CLI11_PARSE(app, argc, argv);
  if (options.seed == 0) {
    options.seed = static_cast<uint64_t>(std::chrono::system_clock::now().time_since_epoch().count());
  }
  return Run(options);
}

}  // namespace
}  // namespace kvant

int main(int argc, char** argv) { return kvant::Main(argc, argv); }
