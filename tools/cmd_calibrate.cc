// kvant calibrate: reads texts with a model and fits the bases of codecs to what the model makes of them.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>

#include "base/hash.h"
#include "cache_list.h"
#include "calibrate/collector.h"
#include "calibrate/fit_entries.h"
#include "calibration_option.h"
#include "codec/registry.h"
#include "kvant/plan.h"
#include "model_options.h"
#include "output_file.h"
#include "progress.h"
#include "text_input.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr int kBatch = 512;
/// Of a text: less says nothing about a model.
constexpr int kMinTokens = 4 * kTokensPerPage;
/// Most memory that sampled rows may take; large models keep fewer rows than asked for.
constexpr int64_t kSampleBytes = int64_t{1} << 30;

struct Options {
  std::string model;
  int threads = 0;
  std::vector<std::string> texts;
  std::vector<std::string> codecs;
  std::string output;
  int64_t tokens = 32768;
  int window = 4096;
  int64_t rows = 16384;
  bool replace = false;
};

void AddOptions(CLI::App& command, Options& o) {
  command.add_option("MODEL", o.model, "GGUF file of the model")->required();
  command.add_option("--text", o.texts, "UTF-8 text files to read; may be repeated. Not those that you measure on")
      ->required();
  command
      .add_option(
          "--codec", o.codecs,
          "Codecs with their options (decoquant:bits=3,gauge=klt) or whole schemes, with commas between them; may "
          "be repeated")
      ->required()
      ->allow_extra_args(false);
  command.add_option("-o,--output", o.output, "File to write; default: MODEL with the ending .kvant.safetensors");
  const auto number = [&](const char* name, auto& value, const char* help, int64_t min, int64_t max) {
    command.add_option(name, value, help)->check(CLI::Range(min, max))->capture_default_str();
  };
  number("--tokens", o.tokens, "Most tokens to read, evenly from all texts", 256, int64_t{1} << 32);
  number("--window", o.window, "Tokens of a text that are read in one go", 256, 1 << 24);
  number("--rows", o.rows, "Most rows that are kept of each head", 256, 1 << 24);
  AddThreadsOption(command, o.threads);
  command.add_flag("--replace", o.replace, "Replace the output file if it exists");
  command.footer(
      "Examples:\n"
      "  kvant calibrate model.gguf --text book.txt notes.txt --codec decoquant:bits=3,gauge=klt,code=trellis\n"
      "  kvant run model.gguf -p \"Once\" --cache decoquant:bits=3,gauge=klt,code=trellis\n"
      "  kvant calibrate model.gguf --text book.txt --codec decoquant:4,gauge=klt --codec decoquant:2,gauge=klt -o "
      "my.st");
}

// ---- what to fit

std::string CodecsWithBasis() {
  std::string names;
  for (const CodecInfo* info : AllCodecs()) {
    if (info->fit_basis != nullptr) names += (names.empty() ? "" : ", ") + std::string(info->name);
  }
  return names;
}

// A codec for the sides that it serves, or both sides of a scheme.
Status AddTargets(const std::string& text, std::vector<CalibrationTarget>* targets) {
  const size_t end = std::min(text.find_first_of(":= "), text.size());
  const CodecInfo* info = FindCodec(text.substr(0, end));
  if (info != nullptr && text.find(' ') == std::string::npos) {
    const Result<CodecOptions> options = ParseCodecOptions(*info, text.substr(std::min(end + 1, text.size())));
    if (!options.ok()) return options.status();
    const CodecChoice choice = {.name = std::string(info->name), .options = *options};
    if (info->keys) targets->push_back({choice, Side::kKey});
    if (info->values) targets->push_back({choice, Side::kValue});
    return Status::Ok();
  }
  const Result<Scheme> scheme = ReadScheme(text);
  if (!scheme.ok()) return scheme.status();
  for (const CodecChoice& choice : scheme->Choices(true)) targets->push_back({choice, Side::kKey});
  for (const CodecChoice& choice : scheme->Choices(false)) targets->push_back({choice, Side::kValue});
  return Status::Ok();
}

// Targets that have a basis, each once.
Result<std::vector<CalibrationTarget>> ReadTargets(const Options& o, const std::vector<LayerShape>& layers) {
  std::vector<CalibrationTarget> targets;
  std::vector<std::string> seen;
  for (const std::string& list : o.codecs) {
    for (const std::string& text : SplitCaches(list)) {
      std::vector<CalibrationTarget> given;
      KVANT_TRY(AddTargets(text, &given));
      Status nothing;
      size_t usable = 0;
      for (const CalibrationTarget& target : given) {
        const Result<Codec> codec = CodecOfLayer(target, layers, 0);
        if (!codec.ok() && codec.status().code() != StatusCode::kNotFound) return codec.status();
        if (!codec.ok()) {
          nothing = codec.status();
          continue;
        }
        ++usable;
        const std::string name =
            CalibrationKey(*codec->info, target.choice.options) + (target.side == Side::kKey ? " K" : " V");
        if (std::ranges::find(seen, name) != seen.end()) continue;
        seen.push_back(name);
        targets.push_back(target);
      }
      if (usable == 0) {
        return Status::InvalidArgument("--codec " + text + ": " + nothing.message() +
                                       "; accepted: options with a basis of " + CodecsWithBasis());
      }
    }
  }
  return targets;
}

// ---- reading

/// One text as tokens, and how many of them are in windows.
struct TextTokens {
  std::vector<int> tokens;
  size_t used = 0;
};
using Window = std::vector<int>;  ///< whole pages

Result<std::vector<TextTokens>> Tokenize(const Options& o, const std::vector<std::string>& texts,
                                         const Runner& runner) {
  std::vector<TextTokens> all;
  for (size_t i = 0; i < texts.size(); ++i) {
    all.push_back({.tokens = runner.Tokenize(texts[i], false)});
    if (std::ssize(all.back().tokens) >= kMinTokens) continue;
    return Status::InvalidArgument(StrFormat("%s: %zu tokens are too few; accepted: at least %d", o.texts[i].c_str(),
                                             all.back().tokens.size(), kMinTokens));
  }
  return all;
}

// The next part of a text, at most `most` tokens, behind the mark that starts a text; empty when there is too little.
Window TakeWindow(TextTokens& text, const Window& start, int64_t most) {
  const int64_t rest = std::ssize(text.tokens) - static_cast<int64_t>(text.used) + std::ssize(start);
  const int64_t pages = std::min(rest, most) / kTokensPerPage;
  if (pages < 2) return {};  // the first page of a window is not kept
  Window window = start;
  const size_t count = static_cast<size_t>(pages * kTokensPerPage) - start.size();
  const auto first = text.tokens.begin() + static_cast<ptrdiff_t>(text.used);
  window.insert(window.end(), first, first + static_cast<ptrdiff_t>(count));
  text.used += count;
  return window;
}

// One window of each text in turn, until there are enough tokens.
std::vector<Window> MakeWindows(const Options& o, std::vector<TextTokens> texts, const Window& start) {
  std::vector<Window> windows;
  int64_t left = o.tokens;
  for (size_t before = SIZE_MAX; before != windows.size();) {
    before = windows.size();
    for (TextTokens& text : texts) {
      Window window = TakeWindow(text, start, std::min<int64_t>(o.window, left));
      left -= std::ssize(window);
      if (!window.empty()) windows.push_back(std::move(window));
    }
  }
  return windows;
}

int64_t CountTokens(const std::vector<Window>& windows) {
  int64_t total = 0;
  for (const Window& window : windows) total += std::ssize(window);
  return total;
}

Status Read(Runner& runner, const std::vector<Window>& windows, Collector& collector) {
  Progress progress;
  const int64_t total = CountTokens(windows);
  int64_t done = 0;
  // The watch learns the model's graph from a first batch.
  KVANT_TRY(runner.Decode(std::span(windows.front()).first(kTokensPerPage), false));
  collector.Expect(total / kTokensPerPage);
  for (const Window& window : windows) {
    KVANT_TRY(runner.Truncate(0));
    for (size_t pos = 0; pos < window.size(); pos += kBatch) {
      const auto batch = std::span(window).subspan(pos, std::min<size_t>(kBatch, window.size() - pos));
      collector.BeginBatch(static_cast<int64_t>(pos), std::ssize(batch));
      KVANT_TRY(runner.Decode(batch, false));
      done += std::ssize(batch);
      progress.Show("reading the texts", done, total);
    }
  }
  collector.EndWindow();
  return Status::Ok();
}

// ---- the whole

Result<std::vector<CalibrationEntry>> Fit(const std::vector<CalibrationTarget>& targets,
                                          const std::vector<LayerShape>& layers, const Collector& collector) {
  Progress progress;
  std::vector<CalibrationEntry> entries;
  const auto total = std::ssize(targets) * std::ssize(layers);
  for (const CalibrationTarget& target : targets) {
    for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
      Result<CalibrationEntry> entry = FitEntry(target, layers, layer, collector);
      if (!entry.ok()) return entry.status();
      entries.push_back(std::move(*entry));
      progress.Show("fitting", std::ssize(entries), total);
    }
  }
  return entries;
}

CollectorOptions SampleSize(const Options& o, const std::vector<CalibrationTarget>& targets, const ModelInfo& model) {
  CollectorOptions options = {.layers = model.layers, .keys = false};
  for (const CalibrationTarget& target : targets) {
    const Result<Codec> codec = CodecOfLayer(target, model.layers, 0);
    if (target.side == Side::kKey) (codec->state->keys_before_rope ? options.keys_before_rope : options.keys) = true;
  }
  int64_t row_bytes = 0;
  for (const LayerShape& l : model.layers) {
    row_bytes += 2 * l.kv_heads * ((options.keys + options.keys_before_rope) * l.k_dim + l.v_dim);
  }
  options.max_pages = std::max<int64_t>(4, std::min(o.rows, kSampleBytes / row_bytes) / kTokensPerPage);
  return options;
}

std::string FileName(const std::string& path) { return std::filesystem::path(path).filename().string(); }

Result<std::vector<std::string>> ReadTexts(const Options& o, std::vector<CalibrationText>* names) {
  std::vector<std::string> texts;
  for (const std::string& path : o.texts) {
    Result<std::string> text = ReadText(path);
    if (!text.ok()) return text.status();
    Hash hash;
    hash.Add(text->data(), text->size());
    names->push_back({FileName(path), hash.Hex()});
    texts.push_back(std::move(*text));
  }
  return texts;
}

Result<OutputFile> OpenOutput(const std::string& path, bool replace) {
  if (!replace && std::filesystem::is_regular_file(path)) {
    return Status::InvalidArgument(path + ": exists; accepted: another name (-o), or --replace");
  }
  return OutputFile::Open(path);
}

// The model's name for itself, and what an entry may be checked against.
Status DescribeModel(const std::string& path, ModelInfo* model, CalibrationOrigin* origin) {
  Result<ModelInfo> info = Runner::Inspect(path);
  if (!info.ok()) return info.status();
  const Result<std::string> hash = Runner::HashModel(path);
  if (!hash.ok()) return hash.status();
  *model = std::move(*info);
  origin->model_hash = *hash;
  origin->model_description = model->description;
  origin->layers = model->layers;
  return Status::Ok();
}

Status Collect(const Options& o, const std::vector<std::string>& texts, Collector& collector,
               CalibrationOrigin* origin) {
  KVANT_TRY(Runner::ShowOutputWeights(o.model, &collector));
  const Result<std::unique_ptr<Runner>> opened = Runner::Open({.model_path = o.model,
                                                               .cache = "f16",
                                                               .context = o.window,
                                                               .batch = kBatch,
                                                               .threads = o.threads,
                                                               .maybe_watcher = &collector});
  if (!opened.ok()) return opened.status();
  Runner& runner = **opened;
  Result<std::vector<TextTokens>> tokens = Tokenize(o, texts, runner);
  if (!tokens.ok()) return tokens.status();
  const std::vector<Window> windows = MakeWindows(o, std::move(*tokens), runner.Tokenize("", true));
  origin->tokens = CountTokens(windows);
  origin->window = o.window;
  return Read(runner, windows, collector);
}

Status Run(Options o) {
  const std::string path = o.output.empty() ? CalibrationBeside(o.model) : o.output;
  const Result<OutputFile> output = OpenOutput(path, o.replace);
  if (!output.ok()) return output.status();
  CalibrationOrigin origin = {
      .kvant_version = KVANT_VERSION, .model_hash = "", .model_description = "", .layers = {}, .texts = {}};
  const Result<std::vector<std::string>> texts = ReadTexts(o, &origin.texts);
  if (!texts.ok()) return texts.status();
  ModelInfo model;
  KVANT_TRY(DescribeModel(o.model, &model, &origin));
  const Result<std::vector<CalibrationTarget>> targets = ReadTargets(o, model.layers);
  if (!targets.ok()) return targets.status();
  o.window = std::min(o.window, model.context_train) / kTokensPerPage * kTokensPerPage;
  Collector collector(SampleSize(o, *targets, model));
  KVANT_TRY(Collect(o, *texts, collector, &origin));
  Result<std::vector<CalibrationEntry>> entries = Fit(*targets, model.layers, collector);
  if (!entries.ok()) return entries.status();
  const size_t count = entries->size();
  const std::string bytes = Calibration::Of(path, origin, std::move(*entries))->Serialize();
  KVANT_TRY(output->Write(bytes));
  std::fprintf(stderr, "kvant: wrote %s: %zu entries, %.2f MB, from %lld tokens (%lld rows of each head)\n",
               path.c_str(), count, static_cast<double>(bytes.size()) / 1e6, static_cast<long long>(origin.tokens),
               static_cast<long long>(collector.num_rows()));
  return Status::Ok();
}

}  // namespace

Verb AddCalibrateVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("calibrate", "Fit codecs to a model with texts, and keep what they learn");
  AddOptions(*command, *options);
  return {command, [options] { return Run(*options); }};
}

}  // namespace kvant
