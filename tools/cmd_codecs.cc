// kvant codecs: the registry as a table, with errors measured there and then.
#include <cstdio>
#include <memory>

#include "codec/registry.h"
#include "eval/distortion.h"
#include "eval/table.h"
#include "verb.h"

namespace kvant {
namespace {

constexpr int kDim = 128;
constexpr int kBlocks = 32;
constexpr uint64_t kSeed = 1;

std::string SideNames(const CodecInfo& info) { return info.keys && info.values ? "K, V" : info.keys ? "K" : "V"; }

Table CodecTable() {
  Table table({{"codec"}, {"sides"}, {"method"}, {"paper"}});
  for (const CodecInfo* info : AllCodecs()) {
    table.AddRow({std::string(info->name), SideNames(*info), std::string(info->summary), std::string(info->paper)});
  }
  return table;
}

Table OptionTable() {
  Table table({{"codec"}, {"option"}, {"default"}, {"accepted"}, {"meaning"}});
  for (const CodecInfo* info : AllCodecs()) {
    for (const OptionInfo& o : info->options) {
      table.AddRow({std::string(info->name), std::string(o.name), std::string(o.default_value), std::string(o.accepted),
                    std::string(o.summary)});
    }
  }
  return table;
}

Status AddMeasurement(const CodecInfo& info, const Expectation& expectation, Table& table) {
  const Result<CodecOptions> options = ParseCodecOptions(info, expectation.options);
  if (!options.ok()) return options.status();
  const Result<Codec> codec = MakeCodec(info.name, *options, {.side = expectation.side, .dim = kDim});
  if (!codec.ok()) return codec.status();
  const Result<Distortion> measured = MeasureDistortion(*codec, kBlocks, kSeed);
  if (!measured.ok()) return measured.status();
  const std::string colon = expectation.options.empty() ? "" : ":";
  table.AddRow({std::string(info.name) + colon + std::string(expectation.options),
                expectation.side == Side::kKey ? "K" : "V", StrFormat("%.3f", measured->bits_per_value),
                StrFormat("%.4f", measured->relative_error)});
  return Status::Ok();
}

Result<Table> MeasurementTable() {
  Table table({{"codec"}, {"side"}, {"bits per value", true}, {"relative error", true}});
  for (const CodecInfo* info : AllCodecs()) {
    for (const Expectation& e : info->expectations) KVANT_TRY(AddMeasurement(*info, e, table));
  }
  return table;
}

Status Run(bool markdown) {
  const Result<Table> measured = MeasurementTable();
  if (!measured.ok()) return measured.status();
  for (const Table& table : {CodecTable(), OptionTable(), *measured}) {
    std::printf("%s\n", (markdown ? table.ToMarkdown() : table.ToText()).c_str());
  }
  std::printf(
      "Bits and error: sealed blocks of %d N(0,1) rows of %d values, measured now; error: ||decoded - rows|| "
      "/ "
      "||rows||.\n",
      kTokensPerPage, kDim);
  return Status::Ok();
}

}  // namespace

Verb AddCodecsVerb(CLI::App& app) {
  auto markdown = std::make_shared<bool>(false);
  CLI::App* command = app.add_subcommand("codecs", "List codecs, their options, and their bits and errors");
  command->add_flag("--markdown", *markdown, "Print the tables as markdown");
  return {command,
          [markdown] { return Run(*markdown); },
          {{"kvant codecs", "See every codec with its options, bits and errors"},
           {"kvant codecs --markdown > codecs.md", "The same for a document"}}};
}

}  // namespace kvant
