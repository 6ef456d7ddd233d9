// kvant eval: what a cache costs in quality, memory and time, against fp16, on the user's model and text.
#include <cstdio>
#include <memory>
#include <optional>

#include "cache_list.h"
#include "calibration_option.h"
#include "codec/calibrated.h"
#include "codec/registry.h"
#include "eval/evaluate.h"
#include "kvant/scheme.h"
#include "model_options.h"
#include "output_file.h"
#include "progress.h"
#include "text_input.h"
#include "verb.h"

namespace kvant {
namespace {

struct Options {
  ModelOptions model;
  std::string text;
  std::vector<std::string> caches = {"kv8,kv4,kv3,kv2"};
  EvaluateOptions evaluate;
  bool markdown = false;
  std::string json;
  std::string html;
};

void AddOptions(CLI::App& command, Options& o) {
  AddModelOptions(command, o.model);
  command.add_option("--text", o.text, "UTF-8 text to measure on; '-' is the standard input")->required();
  command
      .add_option(
          "--cache", o.caches,
          "Caches, with commas between them: presets (kv4), schemes (\"k=int:4 v=int:2\"), plan files (plan.json), "
          "llama.cpp's own types (llama:q8_0); 'all': every codec at its usual rates; may be repeated. f16 always runs")
      ->allow_extra_args(false)
      ->capture_default_str();
  const auto number = [&](const char* name, int& value, const char* help, int min, int max) {
    command.add_option(name, value, help)->check(CLI::Range(min, max))->capture_default_str();
  };
  number("--tokens", o.evaluate.tokens, "Tokens of the text, needles included", 8, 1 << 24);
  number("--skip", o.evaluate.skip, "Tokens at the start that are not scored; -1: half", -1, 1 << 24);
  number("--batch", o.evaluate.batch, "Tokens per chunk of the unscored part", 1, 1 << 16);
  number("--scored-batch", o.evaluate.scored_batch, "Tokens per chunk of the scored part", 1, 1 << 16);
  number("--needles", o.evaluate.needles, "Facts hidden in the text and asked for", 0, 1000);
  number("--decode", o.evaluate.decode_tokens, "Tokens to time decoding with; 0: do not", 0, 1 << 16);
  command.add_option("--seed", o.evaluate.seed, "Seed of the needles")->capture_default_str();
  command.add_flag("--markdown", o.markdown, "Print the tables as markdown");
  command.add_option("--json", o.json, "Also write all numbers to this file");
  command.add_option("--html", o.html, "Also write a self-contained page to this file");
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
  std::fprintf(stderr, "kvant eval: --cache all leaves out what needs a calibration: %s\n", left_out.c_str());
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
  o.evaluate.threads = o.model.threads;
  o.evaluate.memory_limit_bytes = o.model.memory_limit;
  o.evaluate.text_name = o.text == "-" ? "stdin" : o.text;
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
  if (html.value()) KVANT_TRY(html.value()->Write(ReportToHtml(*report)));
  return Status::Ok();
}

}  // namespace

Verb AddEvalVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("eval", "Compare caches with fp16 on a text: quality, memory, speed");
  AddOptions(*command, *options);
  return {command, [options] { return Run(*options); }};
}

}  // namespace kvant
