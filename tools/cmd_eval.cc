// kvant eval: what a cache costs in quality, memory and time, against fp16, on the user's model and text.
#include <cstdio>
#include <memory>
#include <optional>

#include "base/output_file.h"
#include "cache_list.h"
#include "calibration_option.h"
#include "codec/calibrated.h"
#include "codec/registry.h"
#include "eval/evaluate.h"
#include "eval_tasks.h"
#include "kvant/scheme.h"
#include "model_options.h"
#include "progress.h"
#include "report/report_page.h"
#include "results_option.h"
#include "terminal.h"
#include "text_input.h"
#include "verb.h"

namespace kvant {
namespace {

struct Options {
  ModelOptions model;
  std::string text;
  std::vector<std::string> caches = {"kv8,kv4,kv3,kv2"};
  EvaluateOptions evaluate;
  EvalTaskOptions tasks;
  ResultsOption results;
  bool markdown = false;
  std::string json;
  std::string html;
};

// Groups of --help; MODEL and what other verbs have as well stand before them.
void AddTextOptions(CLI::App& command, Options& o) {
  constexpr const char* kGroup = "Text and caches";
  command.add_option("--text", o.text, "UTF-8 text to measure on; '-' is the standard input")
      ->type_name(kFileValue)
      ->required()
      ->group(kGroup);
  command
      .add_option(
          "--cache", o.caches,
          "Caches, with commas between them: presets (kv4), schemes (\"k=int:4 v=int:2\"), plan files (plan.json), "
          "llama.cpp's own types (llama:q8_0); 'all': every codec at its usual rates; may be repeated. f16 always runs")
      ->type_name(kCacheValue)
      ->allow_extra_args(false)
      ->capture_default_str()
      ->group(kGroup);
  const auto number = [&](const char* name, int& value, const char* help, int min, int max) {
    command.add_option(name, value, help)->check(CLI::Range(min, max))->capture_default_str()->group(kGroup);
  };
  number("--tokens", o.evaluate.text.tokens, "Tokens of the text, needles included", 8, 1 << 24);
  number("--skip", o.evaluate.text.skip, "Tokens at the start that are not scored; -1: half", -1, 1 << 24);
  number("--batch", o.evaluate.text.batch, "Tokens per chunk of the unscored part", 1, 1 << 16);
  number("--scored-batch", o.evaluate.text.scored_batch, "Tokens per chunk of the scored part", 1, 1 << 16);
  number("--needles", o.evaluate.text.needles, "Facts hidden in the text and asked for", 0, 1000);
  number("--decode", o.evaluate.text.decode_tokens, "Tokens to time decoding with; 0: do not", 0, 1 << 16);
  command.add_option("--seed", o.evaluate.text.seed, "Seed of the needles")->capture_default_str()->group(kGroup);
}

void AddOutputOptions(CLI::App& command, Options& o) {
  constexpr const char* kGroup = "Output";
  AddResultsOptions(command, kGroup, o.results);
  command.add_flag("--markdown", o.markdown, "Print the tables as markdown")->group(kGroup);
  command.add_option("--json", o.json, "Also write all numbers to this file")->type_name(kFileValue)->group(kGroup);
  command.add_option("--html", o.html, "Also write a self-contained page to this file")
      ->type_name(kFileValue)
      ->group(kGroup);
}

void AddOptions(CLI::App& command, Options& o) {
  AddModelOptions(command, o.model);
  AddTextOptions(command, o);
  AddEvalTaskOptions(command, o.tasks);
  AddOutputOptions(command, o);
}

constexpr const char* kAllCodecs = "all";

bool LacksBasis(const CodecChoice& choice, Side side, const Calibration* maybe_calibration) {
  const Result<Codec> codec = MakeCodec(choice.name, choice.options, {.side = side, .dim = 128});
  if (!codec.ok()) return false;
  return FindBases(*codec, choice.options, maybe_calibration, 0, 1).status().code() == StatusCode::kNotFound;
}

struct CacheNames {
  std::vector<std::string> all;  ///< every codec at its usual rates, when that was asked for
  std::vector<std::string> named;

  std::vector<std::string> Joined() const {
    std::vector<std::string> joined = all;
    joined.insert(joined.end(), named.begin(), named.end());
    return joined;
  }
};

CacheNames NamesOf(const std::vector<std::string>& lists) {
  CacheNames names;
  for (const std::string& list : lists) {
    for (std::string& cache : SplitCaches(list)) {
      if (cache != kAllCodecs) {
        names.named.push_back(std::move(cache));
      } else if (names.all.empty()) {
        names.all = TypicalSchemes();
      }
    }
  }
  return names;
}

/// Removes those of `caches` that need a calibration and have none, and names them.
void LeaveOutUncalibrated(const Calibration* maybe_calibration, std::vector<std::string>* caches) {
  std::string left_out;
  std::erase_if(*caches, [&](const std::string& cache) {
    const Result<Scheme> scheme = Scheme::Parse(cache);
    const bool lacks = scheme.ok() && (LacksBasis(scheme->key, Side::kKey, maybe_calibration) ||
                                       LacksBasis(scheme->value, Side::kValue, maybe_calibration));
    if (lacks) left_out += (left_out.empty() ? "" : ", ") + cache;
    return lacks;
  });
  if (left_out.empty()) return;
  Note("--cache all leaves out what needs a calibration: %s", left_out.c_str());
}

/// Nothing when no path is given.
Result<std::optional<OutputFile>> OpenOutput(const std::string& path) {
  if (path.empty()) return std::optional<OutputFile>();
  Result<OutputFile> file = OutputFile::Open(path);
  if (!file.ok()) return file.status();
  return std::optional<OutputFile>(std::move(*file));
}

Result<Report> Measure(Options& o, const std::string& text) {
  o.evaluate.model_path = o.model.model;
  o.evaluate.kvant_version = KVANT_VERSION;
  const Result<std::string> hash = Runner::HashModel(o.model.model);
  if (!hash.ok()) return hash.status();
  o.evaluate.model_hash = *hash;
  Result<ResultCache> results = OpenResults(o.results);
  if (!results.ok()) return results.status();
  o.evaluate.results = std::move(*results);
  const Result<DeviceInfo> device = Runner::FindDevice(o.model.device);
  if (!device.ok()) return device.status();
  o.evaluate.device = *device;
  o.evaluate.threads = o.model.threads;
  o.evaluate.memory_limit_bytes = o.model.memory_limit;
  o.evaluate.text.name = o.text == "-" ? "stdin" : o.text;
  Result<std::vector<std::shared_ptr<Task>>> tasks = MakeEvalTasks(o.tasks, o.evaluate, text);
  if (!tasks.ok()) return tasks.status();
  o.evaluate.tasks = std::move(*tasks);
  CacheNames caches = NamesOf(o.caches);
  const auto calibration = OpenCalibration(o.model.calibration, o.model.model, caches.Joined());
  if (!calibration.ok()) return calibration.status();
  LeaveOutUncalibrated(calibration->get(), &caches.all);
  o.evaluate.caches = caches.Joined();
  o.evaluate.maybe_calibration = *calibration;
  Progress progress;
  return Evaluate(o.evaluate, text, Runner::Open,
                  [&](std::string_view stage, int64_t done, int64_t total) { progress.Show(stage, done, total); });
}

// The page that kvant report makes of the JSON.
Result<std::string> PageOf(const Report& report) {
  Result<ReportInput> input = ParseReportInput(ReportToJson(report), report.text);
  if (!input.ok()) return input.status();
  return ReportPage({std::move(*input)}, KVANT_VERSION);
}

Status Run(Options& o) {
  const Result<std::optional<OutputFile>> json = OpenOutput(o.json);
  if (!json.ok()) return json.status();
  const Result<std::optional<OutputFile>> html = OpenOutput(o.html);
  if (!html.ok()) return html.status();
  const Result<std::string> text = ReadText(o.text);
  if (!text.ok()) return text.status();
  const Result<Report> report = Measure(o, *text);
  if (!report.ok()) return report.status();
  std::fputs((o.markdown ? ReportToMarkdown(*report) : ReportToText(*report)).c_str(), stdout);
  if (json.value()) KVANT_TRY(json.value()->Write(ReportToJson(*report)));
  if (html.value()) {
    const Result<std::string> page = PageOf(*report);
    if (!page.ok()) return page.status();
    KVANT_TRY(html.value()->Write(*page));
  }
  return Status::Ok();
}

}  // namespace

Verb AddEvalVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "Compare caches with fp16 on a text: quality, memory, speed");
  AddOptions(*command, *options);
  return {command,
          [options] { return Run(*options); },
          {{"kvant eval model.gguf --text book.txt", "Compare the presets with fp16"},
           {"kvant eval model.gguf --text book.txt --cache kv4,llama:q8_0,\"k=int:4 v=kivi:2\" --tokens 8192",
            "Compare caches of your choice on 8,192 tokens"},
           {"kvant eval model.gguf --text book.txt --tasks all --speed-at 1024,4096 --json a.json",
            "Ask for more than a text: needles, drift, tool calls, speed"},
           {"kvant eval model.gguf --text book.txt --json a.json --html a.html --progress=json",
            "Keep the numbers and a page, and tell a program how far it is"}}};
}

}  // namespace kvant
