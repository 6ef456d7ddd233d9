// kvant bench: kernels checked first, then timed; and whole models.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/output_file.h"
#include "bench_attend.h"
#include "bench_codec.h"
#include "cmd_bench_model.h"
#include "eval/table.h"
#include "verb.h"

namespace kvant {
namespace {

const std::vector<std::string> kDefaultSchemes = {"raw:bf16",
                                                  "int:8",
                                                  "int:4",
                                                  "int:3",
                                                  "int:2",
                                                  "kivi:4",
                                                  "kivi:2",
                                                  "decoquant:4",
                                                  "decoquant:3",
                                                  "decoquant:2",
                                                  "decoquant:4,gauge=klt",
                                                  "decoquant:3,gauge=klt",
                                                  "decoquant:2,gauge=klt",
                                                  "decoquant:3,code=trellis",
                                                  "decoquant:2,code=trellis",
                                                  "turboquant:3",
                                                  "calibquant:stats=segment",
                                                  "k=qjl v=qjl"};

struct Options {
  BenchAttendOptions attend;
  size_t mebibytes = 512;
  bool markdown = false;
  std::string json;
};

// Speeds relative to raw that others are compared with.
struct Baselines {
  double best_16_bit = 0;
  double ggml = 0;  // 0: not in this build
};

Baselines BaselinesOf(const BenchAttendReport& report) {
  Baselines b;
  for (const BenchAttendRow& row : report.rows) {
    if (row.is_16_bit) b.best_16_bit = std::max(b.best_16_bit, row.x_raw);
    if (row.scheme == kGgmlScheme) b.ggml = row.x_raw;
  }
  return b;
}

void PrintAttend(const BenchAttendOptions& o, const BenchAttendReport& report, bool markdown) {
  Table table({{"scheme"},
               {"B/token", true},
               {"error", true},
               {"ms", true},
               {"p10-p90", true},
               {"ns/token", true},
               {"GB/s", true},
               {"of read", true},
               {"x ggml f16", true},
               {"x best 16-bit", true}});
  const Baselines base = BaselinesOf(report);
  for (const BenchAttendRow& r : report.rows) {
    table.AddRow(
        {r.scheme, StrFormat("%.1f", r.bytes_per_token), StrFormat("%.1e", r.error), StrFormat("%.2f", r.median_ms),
         StrFormat("%.2f-%.2f", r.p10_ms, r.p90_ms), StrFormat("%.2f", r.ns_per_token), StrFormat("%.1f", r.gb_per_s),
         StrFormat("%.0f %%", 100.0 * r.gb_per_s / report.read_gb_per_s),
         base.ggml > 0 ? StrFormat("%.2f", r.x_raw / base.ggml) : "-", StrFormat("%.2f", r.x_raw / base.best_16_bit)});
  }
  std::printf("%s\n", (markdown ? table.ToMarkdown() : table.ToText()).c_str());
  std::printf(
      "%s, %s, %d threads, reading %.1f GB/s. Decode attention over %d x %lld tokens, %d query heads per KV head, head "
      "size %d; a token is one of one KV head, K and V. Ratios: medians over %d pairs of runs with raw.\n",
      report.cpu.c_str(), report.simd_target.c_str(), o.threads, report.read_gb_per_s, o.kv_heads,
      static_cast<long long>(report.tokens), o.heads_per_kv, o.dim, o.repeats);
}

Status WriteJson(const std::string& path, const BenchAttendOptions& o, const BenchAttendReport& report) {
  nlohmann::ordered_json rows = nlohmann::ordered_json::array();
  for (const BenchAttendRow& r : report.rows) {
    rows.push_back({{"scheme", r.scheme},
                    {"bytes_per_token", r.bytes_per_token},
                    {"error", r.error},
                    {"median_ms", r.median_ms},
                    {"p10_ms", r.p10_ms},
                    {"p90_ms", r.p90_ms},
                    {"ns_per_token", r.ns_per_token},
                    {"gb_per_s", r.gb_per_s},
                    {"x_raw", r.x_raw},
                    {"is_16_bit", r.is_16_bit}});
  }
  const nlohmann::ordered_json json = {
      {"cpu", report.cpu},      {"simd_target", report.simd_target},     {"tokens", report.tokens},
      {"kv_heads", o.kv_heads}, {"heads_per_kv", o.heads_per_kv},        {"dim", o.dim},
      {"threads", o.threads},   {"read_gb_per_s", report.read_gb_per_s}, {"rows", rows}};
  Result<OutputFile> file = OutputFile::Open(path);
  if (!file.ok()) return file.status();
  return file->Write(json.dump(2) + "\n");
}

Status RunAttend(Options options) {
  options.attend.fp16_bytes = options.mebibytes << 20;
  if (options.attend.schemes.empty()) options.attend.schemes = kDefaultSchemes;
  const Result<BenchAttendReport> report = BenchAttend(options.attend);
  if (!report.ok()) return report.status();
  PrintAttend(options.attend, *report, options.markdown);
  return options.json.empty() ? Status::Ok() : WriteJson(options.json, options.attend, *report);
}

Status RunCodec(const Options& options) {
  const auto& schemes = options.attend.schemes.empty() ? kDefaultSchemes : options.attend.schemes;
  const Result<std::string> text = BenchCodecTable(schemes, options.attend.heads_per_kv, options.attend.dim);
  if (!text.ok()) return text.status();
  std::printf("%s\n", text->c_str());
  return Status::Ok();
}

}  // namespace

Verb AddBenchVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      app.add_subcommand("bench", "Time codecs and attention kernels, after checking them, and whole models");
  command->require_subcommand(1);
  CLI::App* attend = command->add_subcommand("attend", "Fused decode attention over a large cache");
  CLI::App* codec = command->add_subcommand("codec", "Every verb of every codec on one block");
  for (CLI::App* verb : {attend, codec}) {
    verb->add_option("--cache", options->attend.schemes, "Schemes; default: one of each kind")->type_name(kCacheValue);
    verb->add_option("--group", options->attend.heads_per_kv, "Query heads per KV head")->check(CLI::Range(1, 16));
    verb->add_option("--dim", options->attend.dim, "Head size");
  }
  attend->add_option("--size", options->mebibytes, "Size of the cache at 16 bits, MiB")->check(CLI::Range(1, 65536));
  attend->add_option("--kv-heads", options->attend.kv_heads, "KV heads")->check(CLI::Range(1, 128));
  attend->add_option("--threads", options->attend.threads, "Threads")->check(CLI::Range(1, 256));
  attend->add_option("--repeats", options->attend.repeats, "Runs of each kernel")->check(CLI::Range(3, 1000));
  attend->add_flag("--markdown", options->markdown, "Print the table as markdown");
  attend->add_option("--json", options->json, "Also write the numbers to this file")->type_name(kFileValue);
  const std::function<Status()> run_model = AddBenchModel(*command);
  return {
      command,
      [options, attend, codec, run_model] {
        if (attend->parsed()) return RunAttend(*options);
        return codec->parsed() ? RunCodec(*options) : run_model();
      },
      {{"kvant bench attend", "Attention over 512 MB of cache: all kinds of codecs, llama.cpp's kernel beside them"},
       {"kvant bench attend --cache int:4 --size 64 --repeats 21 --json a.json", "One scheme, 64 MiB, more runs"},
       {"kvant bench codec --cache decoquant:4 --dim 64", "Every verb of one codec on one block"},
       {"kvant bench model model.gguf --cache f16,kv4 --at 2048,8192,32768 --json a.json",
        "A model with two caches, at three lengths"}}};
}

}  // namespace kvant
