// kvant tune: finds the best codec for each layer's K and V within a budget, on the user's model and text.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/hash.h"
#include "base/output_file.h"
#include "cache_list.h"
#include "calibration_option.h"
#include "eval/table.h"
#include "model_options.h"
#include "progress.h"
#include "text_input.h"
#include "tune/tuner.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr int kBatch = 512;
/// Rows that the attention probe looks at: enough pages for a codec that fits a basis to the prompt.
constexpr int64_t kProbeRows = 1024;

// Data-free, and in steps fine enough that the budget is spent: every quarter of a bit up to 4, then scalar codes.
constexpr const char* kDefaultCodecs =
    "decoquant:bits=1,code=trellis,decoquant:bits=1.5,code=trellis,decoquant:bits=1.75,code=trellis,"
    "decoquant:bits=2,code=trellis,decoquant:bits=2.25,code=trellis,decoquant:bits=2.5,code=trellis,"
    "decoquant:bits=2.75,code=trellis,decoquant:bits=3,code=trellis,decoquant:bits=3.25,code=trellis,"
    "decoquant:bits=3.5,code=trellis,decoquant:bits=3.75,code=trellis,decoquant:bits=4,code=trellis,"
    "decoquant:bits=5,decoquant:bits=6,int:8";

struct Options {
  std::string model;
  std::string device;
  int threads = 0;
  std::string calibration;
  std::string text;
  std::string check_text;
  std::string budget;
  double max_kl = 0;
  std::vector<std::string> codecs = {kDefaultCodecs};
  int tokens = 1536;
  int check_tokens = 4096;
  int64_t context = 0;
  int sink = 4;
  int recent = -1;
  int validate = 0;
  double time_limit = 0;
  std::string output;
  std::string journal;
};

void AddOptions(CLI::App& command, Options& o) {
  command.add_option("MODEL", o.model, "GGUF file of the model")->type_name(kModelValue)->required();
  command.add_option("--text", o.text, "UTF-8 text to tune on: like what the model will read")
      ->type_name(kFileValue)
      ->required();
  command
      .add_option("--check-text", o.check_text, "Another text to check the plan on; default: a later part of --text")
      ->type_name(kFileValue);
  auto* budget = command.add_option(
      "--budget", o.budget,
      "Most memory: bits per value (3, 2.5bits), bytes per token (512B), or a context in memory (\"64K in 2GiB\")");
  command
      .add_option("--max-kl", o.max_kl,
                  "Instead: the smallest plan whose KL divergence on the check's text is at most this, in nats")
      ->check(CLI::PositiveNumber)
      ->excludes(budget);
  command
      .add_option(
          "--codecs", o.codecs,
          "Codecs to choose from, with commas between them; 16 bits is always among them. Default: data-free ones "
          "in fine steps")
      ->type_name("CODECS")
      ->allow_extra_args(false);
  const auto number = [&](const char* name, auto& value, const char* help, int64_t min, int64_t max) {
    return command.add_option(name, value, help)->check(CLI::Range(min, max));
  };
  number("--tokens", o.tokens, "Tokens to tune on; a third of them is not scored", 128, 1 << 24)->capture_default_str();
  number("--check-tokens", o.check_tokens, "Tokens to check on; half of them is not scored", 128, 1 << 24)
      ->capture_default_str();
  number("--context", o.context,
         "Tokens in the cache that the budget is for; default: as in --budget, or --check-tokens", 1, int64_t{1} << 40);
  number("--sink", o.sink, "First tokens that stay exact", 0, kTokensPerPage)->capture_default_str();
  number("--recent", o.recent, "Newest tokens that stay exact; default: what the codecs prescribe", 0, 65536);
  number("--validate", o.validate, "Random plans to compare predicted with measured KL", 0, 1000)
      ->capture_default_str();
  command.add_option("--time-limit", o.time_limit, "Seconds after which only what is needed for a plan is measured")
      ->check(CLI::NonNegativeNumber);
  command.add_option("-o,--output", o.output, "Plan file to write; default: MODEL with the ending .plan.json")
      ->type_name(kFileValue);
  command
      .add_option("--journal", o.journal,
                  "File that keeps measurements for another run; default: the plan file with .journal behind it")
      ->type_name(kFileValue);
  AddDeviceOption(command, o.device);
  AddThreadsOption(command, o.threads);
  AddCalibrationOption(command, o.calibration);
}

std::string FileName(const std::string& path) { return std::filesystem::path(path).filename().string(); }

// ---- reading

/// What is read from the model once: tokens of the two texts, and the rows that the probe wants.
struct Inputs {
  std::vector<int> tuning;
  std::vector<int> check;
};

Status TooShort(const std::string& name, size_t tokens, int64_t needed) {
  return Status::InvalidArgument(StrFormat(
      "%s: %zu tokens are too few; --tokens and --check-tokens need %lld: accepted: a longer text, or smaller numbers",
      name.c_str(), tokens, static_cast<long long>(needed)));
}

// Up to `count` tokens of `text` from `first` on, behind the mark that starts a text.
std::vector<int> Part(const std::vector<int>& start, const std::vector<int>& text, size_t first, int count) {
  std::vector<int> part = start;
  const size_t wanted = static_cast<size_t>(count) - std::min(start.size(), static_cast<size_t>(count));
  for (size_t i = first; i < std::min(text.size(), first + wanted); ++i) part.push_back(text[i]);
  return part;
}

Result<Inputs> ReadTexts(const Options& o, const Runner& runner) {
  const Result<std::string> text = ReadText(o.text);
  if (!text.ok()) return text.status();
  const std::vector<int> start = runner.Tokenize("", true), tokens = runner.Tokenize(*text, false);
  Inputs inputs = {.tuning = Part(start, tokens, 0, o.tokens), .check = {}};
  if (std::ssize(inputs.tuning) < o.tokens) return TooShort(o.text, tokens.size(), o.tokens);
  if (o.check_text.empty()) {
    inputs.check = Part(start, tokens, static_cast<size_t>(o.tokens), o.check_tokens);
    if (std::ssize(inputs.check) < o.check_tokens) return TooShort(o.text, tokens.size(), o.tokens + o.check_tokens);
    return inputs;
  }
  const Result<std::string> check = ReadText(o.check_text);
  if (!check.ok()) return check.status();
  const std::vector<int> check_tokens = runner.Tokenize(*check, false);
  inputs.check = Part(start, check_tokens, 0, o.check_tokens);
  if (std::ssize(inputs.check) < o.check_tokens) return TooShort(o.check_text, check_tokens.size(), o.check_tokens);
  return inputs;
}

// Shows the probe the rows of the tuning text.
Status FeedProbe(Runner& runner, const std::vector<int>& tokens, int64_t rows, AttentionProbe& probe) {
  const std::span<const int> all(tokens);
  KVANT_TRY(runner.Decode(all.first(kTokensPerPage), false));  // the watch learns the model's graph
  KVANT_TRY(runner.Truncate(0));
  probe.Clear();
  return runner.Decode(all.first(static_cast<size_t>(rows + kTokensPerPage)), false);
}

// ---- the whole

Result<TunerOptions> MakeTunerOptions(const Options& o, const ModelInfo& model) {
  if (std::max(o.tokens, o.check_tokens) > model.context_train) {
    return Status::InvalidArgument(
        StrFormat("--tokens %d, --check-tokens %d: the model was trained for at most %d tokens; accepted: up to that",
                  o.tokens, o.check_tokens, model.context_train));
  }
  std::vector<std::string> texts;
  for (const std::string& list : o.codecs) {
    for (std::string& text : SplitCaches(list)) texts.push_back(std::move(text));
  }
  Result<std::vector<Candidate>> candidates = ParseCandidates(texts);
  if (!candidates.ok()) return candidates.status();
  TunerOptions options = {.layers = model.layers,
                          .candidates = *std::move(candidates),
                          .budget = std::nullopt,
                          .max_kl = o.max_kl,
                          .sink_tokens = o.sink,
                          .recent_tokens = o.recent,
                          .validation_plans = o.validate,
                          .time_limit_s = o.time_limit};
  for (const Candidate& c : options.candidates) {
    if (o.recent >= 0) break;
    options.recent_tokens = std::max(options.recent_tokens, c.recent_tokens());
  }
  if (!o.budget.empty()) {
    const Result<Budget> budget = Budget::Parse(o.budget);
    if (!budget.ok()) return Status::InvalidArgument("--budget: " + budget.status().message());
    options.budget = *budget;
  } else if (o.max_kl <= 0) {
    return Status::InvalidArgument("no limit; accepted: --budget, such as 3bits, or --max-kl, such as 0.005");
  }
  const int64_t said = options.budget ? options.budget->context : 0;
  if (said != 0 && o.context != 0 && said != o.context) {
    return Status::InvalidArgument("--context and --budget speak of different contexts; accepted: one of them");
  }
  options.context = said != 0 ? said : o.context != 0 ? o.context : o.check_tokens;
  return options;
}

KlMeterOptions MeterOptions(const Options& o, int tokens, int skip, const std::vector<int>& text,
                            const std::string& model_hash, std::shared_ptr<const Calibration> calibration) {
  Hash hash;
  hash.Add(text.data(), text.size() * sizeof(int));
  if (o.device != "CPU") hash.Add(o.device.data(), o.device.size());
  if (calibration) {
    const std::string bytes = calibration->Serialize();
    hash.Add(bytes.data(), bytes.size());
  }
  return {.model_path = o.model,
          .tokens = tokens,
          .skip = skip,
          .batch = kBatch,
          .device = o.device,
          .threads = o.threads,
          .maybe_calibration = std::move(calibration),
          .key = std::string(KVANT_VERSION) + " " + model_hash + " " + hash.Hex()};
}

std::string PlanTable(const Plan& plan) {
  Table table({{"layer", true}, {"K", false}, {"V", false}});
  const std::vector<LayerCodecs> layers = plan.Layers();
  for (size_t i = 0; i < layers.size(); ++i) {
    table.AddRow({std::to_string(i), layers[i].key.ToString(), layers[i].value.ToString()});
  }
  return table.ToText();
}

std::string UniformTable(const Plan& plan) {
  Table table({{"cache"}, {"bits", true}, {"KL, nats", true}});
  for (const PlanUniform& u : plan.uniform) {
    table.AddRow({u.cache, StrFormat("%.3f", u.bits_per_value), StrFormat("%.5f", u.kl)});
  }
  table.AddRow({"this plan", StrFormat("%.3f", plan.measured.bits_per_value), StrFormat("%.5f", plan.measured.kl)});
  return table.ToText();
}

void Print(const TuneResult& result, const Options& o, const TunerOptions& options, const std::string& path) {
  const Plan& plan = result.plan;
  std::printf("\n%s\non the check's text:\n\n%s\n", PlanTable(plan).c_str(), UniformTable(plan).c_str());
  if (result.limit_bytes > 0) {
    std::printf("%lld of %.0f bytes at %lld tokens; ", static_cast<long long>(result.bytes), result.limit_bytes,
                static_cast<long long>(options.context));
  }
  std::printf(
      "%.3f bits per value in sealed pages, %.0f bytes per token; %d runs of the model\nwrote %s: kvant run %s --cache "
      "%s\n",
      plan.bits_per_value, plan.bytes_per_token, result.runs, path.c_str(), o.model.c_str(), path.c_str());
}

// Where the plan comes from.
void SayWhere(const Options& o, const std::string& model_hash, Plan* plan) {
  plan->kvant_version = KVANT_VERSION;
  plan->model = FileName(o.model);
  plan->model_hash = model_hash;
  plan->tuning.text = FileName(o.text);
  plan->measured.text = FileName(o.check_text.empty() ? o.text : o.check_text);
}

Status Run(Options o) {
  const Result<DeviceInfo> device = Runner::FindDevice(o.device);
  if (!device.ok()) return device.status();
  o.device = device->name;
  const std::string path =
      o.output.empty() ? std::filesystem::path(o.model).replace_extension(".plan.json").string() : o.output;
  if (!IsPlanPath(path)) return Status::InvalidArgument("--output " + path + ": accepted: a name that ends in .json");
  const Result<ModelInfo> model = Runner::Inspect(o.model);
  if (!model.ok()) return model.status();
  Result<TunerOptions> options = MakeTunerOptions(o, *model);
  if (!options.ok()) return options.status();
  const Result<std::string> model_hash = Runner::HashModel(o.model);
  if (!model_hash.ok()) return model_hash.status();
  std::vector<std::string> codecs;
  for (const Candidate& c : options->candidates) codecs.push_back(c.name());
  const auto calibration = OpenCalibration(o.calibration, o.model, codecs);
  if (!calibration.ok()) return calibration.status();
  options->maybe_calibration = *calibration;

  const int64_t probe_rows = std::min<int64_t>(kProbeRows, o.tokens / kTokensPerPage * kTokensPerPage - kTokensPerPage);
  AttentionProbe probe(model->layers, probe_rows);
  Result<std::unique_ptr<Runner>> runner = Runner::Open({.model_path = o.model,
                                                         .cache = "f16",
                                                         .device = "cpu",
                                                         .context = static_cast<int>(probe_rows) + kTokensPerPage,
                                                         .batch = kBatch,
                                                         .threads = o.threads,
                                                         .maybe_watcher = &probe});
  if (!runner.ok()) return runner.status();
  Result<Inputs> inputs = ReadTexts(o, **runner);
  if (!inputs.ok()) return inputs.status();
  const Result<OutputFile> output = OutputFile::Open(path);
  if (!output.ok()) return output.status();
  Result<Journal> journal = Journal::Open(o.journal.empty() ? path + ".journal" : o.journal);
  if (!journal.ok()) return journal.status();
  Progress progress;
  const EvaluateProgress show = [&](std::string_view stage, int64_t done, int64_t total) {
    progress.Show(stage, done, total);
  };
  KlMeter tuning(MeterOptions(o, o.tokens, o.tokens / 3, inputs->tuning, *model_hash, *calibration), inputs->tuning,
                 Runner::Open, show, &*journal);
  KlMeter check(MeterOptions(o, o.check_tokens, o.check_tokens / 2, inputs->check, *model_hash, *calibration),
                inputs->check, Runner::Open, show, &*journal);
  Tuner tuner(*options, &tuning, &check, &probe, [&](const std::string& line) {
    progress.Clear();
    std::printf("%s\n", line.c_str());
    std::fflush(stdout);
  });
  KVANT_TRY(tuner.CheckBudget());
  KVANT_TRY(FeedProbe(**runner, inputs->tuning, probe_rows, probe));
  runner->reset();  // its memory is for the caches to come
  Result<TuneResult> result = tuner.Run();
  progress.Clear();
  if (!result.ok()) return result.status();
  SayWhere(o, *model_hash, &result->plan);
  KVANT_TRY(output->Write(result->plan.Serialize()));
  Print(*result, o, *options, path);
  return Status::Ok();
}

}  // namespace

Verb AddTuneVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("tune", "Find the best codec for each layer within a budget");
  AddOptions(*command, *options);
  return {command,
          [options] { return Run(*options); },
          {{"kvant tune model.gguf --text book.txt --budget 3bits -o plan.json", "The best plan of 3 bits per value"},
           {"kvant tune model.gguf --text book.txt --budget \"64K in 2GiB\" --check-text notes.txt --validate 10",
            "A plan that holds 65,536 tokens in 2 GiB, checked on another text, with ten random plans beside it"},
           {"kvant tune model.gguf --text book.txt --max-kl 0.005", "The smallest plan that is as close to fp16"}}};
}

}  // namespace kvant
