// What a text run found, kept for later runs: every number as it was measured, nothing that can be computed from others.
#include <nlohmann/json.hpp>

#include "eval/text_run.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

Json StoreDivergence(const DivergenceSummary& d) {
  return {{"positions", d.positions},
          {"kl", d.kl},
          {"kl_stderr", d.kl_stderr},
          {"kl_low", d.kl_interval.low},
          {"kl_high", d.kl_interval.high},
          {"kl_p99", d.kl_p99},
          {"top1", d.top1},
          {"ppl_reference", d.ppl_reference},
          {"ppl", d.ppl},
          {"kl_by_window", d.kl_by_window}};
}

DivergenceSummary RestoreDivergence(const Json& json) {
  return {.positions = json.at("positions"),
          .kl = json.at("kl"),
          .kl_stderr = json.at("kl_stderr"),
          .kl_interval = {json.at("kl_low"), json.at("kl_high")},
          .kl_p99 = json.at("kl_p99"),
          .top1 = json.at("top1"),
          .ppl_reference = json.at("ppl_reference"),
          .ppl = json.at("ppl"),
          .kl_by_window = json.at("kl_by_window")};
}

Json StoreUse(const CacheUse& use) {
  return {{"bytes_by_kind", use.footprint.by_kind},
          {"rows", use.footprint.rows},
          {"values", use.footprint.values},
          {"memory_bytes", use.memory_bytes},
          {"fp16_bytes", use.fp16_bytes},
          {"seal_seconds", use.seal_seconds},
          {"bases", use.bases}};
}

CacheUse RestoreUse(const Json& json) {
  CacheUse use;
  for (size_t kind = 0; kind < kNumStreamKinds; ++kind) use.footprint.by_kind[kind] = json.at("bytes_by_kind").at(kind);
  use.footprint.rows = json.at("rows");
  use.footprint.values = json.at("values");
  use.memory_bytes = json.at("memory_bytes");
  use.fp16_bytes = json.at("fp16_bytes");
  use.seal_seconds = json.at("seal_seconds");
  use.bases = json.at("bases");
  return use;
}

}  // namespace

Json StoreText(const ReportRow& row) {
  return {{"divergence", StoreDivergence(row.divergence)},
          {"needles_right", row.needles_right},
          {"use", StoreUse(row.use)},
          {"prefill_tokens_per_s", row.prefill_tokens_per_s},
          {"encode_share", row.encode_share},
          {"decode_ms", row.decode_ms},
          {"process_bytes", row.process_bytes}};
}

bool RestoreText(const Json& stored, ReportRow* row) {
  ReportRow restored = *row;
  try {
    restored.divergence = RestoreDivergence(stored.at("divergence"));
    restored.needles_right = stored.at("needles_right");
    restored.use = RestoreUse(stored.at("use"));
    restored.prefill_tokens_per_s = stored.at("prefill_tokens_per_s");
    restored.encode_share = stored.at("encode_share");
    restored.decode_ms = stored.at("decode_ms");
    restored.process_bytes = stored.at("process_bytes");
  } catch (const Json::exception&) {
    return false;
  }
  *row = std::move(restored);
  return true;
}

}  // namespace kvant
