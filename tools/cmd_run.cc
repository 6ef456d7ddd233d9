// kvant run: generates text with a compressed cache.
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <memory>

#include "calibration_option.h"
#include "llama/runner.h"
#include "model_options.h"
#include "progress.h"
#include "sampler.h"
#include "terminal.h"
#include "text_input.h"
#include "verb.h"

namespace kvant {
namespace {

// Tokens per chunk of the prompt: on a GPU, a chunk decodes what is before it, so fewer are better.
constexpr int kBatch = 512;
constexpr int kGpuBatch = 2048;

struct Options {
  ModelOptions model;
  std::string prompt;
  std::string file;
  std::string cache = "kv4";
  int predict = 128;
  int context = 4096;
  bool chat = false;
  double temperature = 0;
  uint64_t seed = 1;
};

/// Tokens and seconds of the two halves of a generation.
struct Speed {
  double prefill_tokens = 0;
  double prefill_s = 0;
  double decode_tokens = 0;
  double decode_s = 0;
};

using Clock = std::chrono::steady_clock;
double Seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

void AddOptions(CLI::App& command, Options& o) {
  AddModelOptions(command, o.model);
  auto* prompt = command.add_option("-p,--prompt", o.prompt, "The prompt; without it and --file: the standard input");
  command.add_option("--file", o.file, "Read the prompt from this file; '-' is the standard input")
      ->type_name(kFileValue)
      ->excludes(prompt);
  command
      .add_option("--cache", o.cache,
                  "Preset (kv4), scheme (\"k=int:4 v=int:2\"), plan file (plan.json) or llama.cpp type (llama:q8_0)")
      ->type_name(kCacheValue)
      ->capture_default_str();
  command.add_option("-n,--predict", o.predict, "Most tokens to generate")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command.add_option("--context", o.context, "Tokens the cache may hold")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command.add_flag("--chat", o.chat, "Put the prompt into the model's chat template");
  command.add_option("--temperature", o.temperature, "0 takes the most probable token, higher values draw")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str();
  command.add_option("--seed", o.seed, "Seed of the drawing")->capture_default_str();
}

Result<std::string> ReadPrompt(const CLI::App& command, const Options& o) {
  if (command.count("--prompt") > 0) {
    KVANT_TRY(CheckText(o.prompt, "--prompt"));
    return o.prompt;
  }
  if (o.file.empty() && isatty(STDIN_FILENO) == 1) {
    return Status::InvalidArgument("no prompt; accepted: -p TEXT, --file F, or text on the standard input");
  }
  return ReadText(o.file.empty() ? "-" : o.file);
}

Status CheckFit(size_t prompt_tokens, const Options& o) {
  const size_t needed = prompt_tokens + static_cast<size_t>(o.predict);
  if (needed <= static_cast<size_t>(o.context)) return Status::Ok();
  return Status::InvalidArgument(
      StrFormat("--context %d is too small for %zu prompt tokens and --predict %d; accepted: at least %zu", o.context,
                prompt_tokens, o.predict, needed));
}

Status Prefill(Runner& runner, std::span<const int> tokens, size_t batch, Speed* speed) {
  Progress progress;
  const auto start = Clock::now();
  for (size_t pos = 0; pos < tokens.size(); pos += batch) {
    KVANT_TRY(runner.Decode(tokens.subspan(pos, std::min(batch, tokens.size() - pos)), false));
    progress.Show("reading the prompt", runner.num_tokens(), static_cast<int64_t>(tokens.size()));
  }
  speed->prefill_tokens = static_cast<double>(tokens.size());
  speed->prefill_s = Seconds(start);
  return Status::Ok();
}

Status Generate(Runner& runner, const Options& o, Speed* speed) {
  Sampler sampler(o.temperature, o.seed);
  const auto start = Clock::now();
  for (int i = 0; i < o.predict; ++i) {
    const int token = sampler.Next(runner.Logits(-1));
    if (runner.IsEndOfGeneration(token)) break;
    const std::string text = runner.Detokenize(token);
    std::fwrite(text.data(), 1, text.size(), stdout);
    std::fflush(stdout);
    if (i + 1 == o.predict) break;
    KVANT_TRY(runner.Decode(std::span(&token, 1), false));
    speed->decode_tokens += 1;
  }
  std::fputc('\n', stdout);
  speed->decode_s = Seconds(start);
  return Status::Ok();
}

void PrintSummary(const Options& o, const CacheUse& use, const Speed& speed) {
  Note(
      "cache %s holds %.2f MB (fp16: %.2f MB), %.2f bits per value; prefill %.0f tok/s, decode %.1f "
      "tok/s%s",
      o.cache.c_str(), static_cast<double>(use.memory_bytes) / 1e6, static_cast<double>(use.fp16_bytes) / 1e6,
      use.footprint.bits_per_value(), speed.prefill_tokens / speed.prefill_s,
      speed.decode_tokens > 0 ? speed.decode_tokens / speed.decode_s : 0.0,
      use.bases.empty() ? "" : ("; bases: " + use.bases).c_str());
}

Status Run(const CLI::App& command, const Options& o) {
  Result<std::string> prompt = ReadPrompt(command, o);
  if (!prompt.ok()) return prompt.status();
  const auto calibration = OpenCalibration(o.model.calibration, o.model.model, {o.cache});
  if (!calibration.ok()) return calibration.status();
  const Result<DeviceInfo> device = Runner::FindDevice(o.model.device);
  if (!device.ok()) return device.status();
  const int batch = device->name == "CPU" ? kBatch : kGpuBatch;
  Result<std::unique_ptr<Runner>> opened = Runner::Open({.model_path = o.model.model,
                                                         .cache = o.cache,
                                                         .device = device->name,
                                                         .context = o.context,
                                                         .batch = batch,
                                                         .threads = o.model.threads,
                                                         .memory_limit_bytes = o.model.memory_limit,
                                                         .maybe_calibration = *calibration});
  if (!opened.ok()) return opened.status();
  Runner& runner = **opened;
  if (o.chat) {
    prompt = runner.ApplyChatTemplate(*prompt);
    if (!prompt.ok()) return prompt.status();
  }
  const std::vector<int> tokens = runner.Tokenize(*prompt, true);
  KVANT_TRY(CheckFit(tokens.size(), o));
  Speed speed;
  KVANT_TRY(Prefill(runner, tokens, static_cast<size_t>(batch), &speed));
  KVANT_TRY(Generate(runner, o, &speed));
  PrintSummary(o, runner.cache_use(), speed);
  return Status::Ok();
}

}  // namespace

Verb AddRunVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("run", "Generate text with a compressed cache");
  AddOptions(*command, *options);
  return {command,
          [command, options] { return Run(*command, *options); },
          {{"kvant run model.gguf -p \"Once upon a time\"", "Generate 128 tokens with the cache at about 4 bits"},
           {"kvant run model.gguf --file book.txt --cache kv3 --context 16384 -n 64", "Continue a long text"},
           {"echo \"What is a page?\" | kvant run model.gguf --chat --cache \"k=int:8 v=int:4\" --quiet",
            "Answer a question, and print nothing but the answer"}}};
}

}  // namespace kvant
