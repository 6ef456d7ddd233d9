#include "report/report_input.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kEvalVersion = 2;  // the latest that this code knows; the first one had no number
constexpr int kPlanVersion = 1;

// ---- single values

const Json& At(const Json& json, const char* key) {
  static const Json nothing;
  if (!json.is_object()) return nothing;
  const auto found = json.find(key);
  return found == json.end() ? nothing : *found;
}

MaybeNumber AsNumber(const Json& json) {
  if (!json.is_number()) return {};
  const double value = json.get<double>();
  return std::isfinite(value) ? MaybeNumber(value) : std::nullopt;
}

MaybeNumber Number(const Json& json, const char* key) { return AsNumber(At(json, key)); }

std::string String(const Json& json, const char* key) {
  const Json& value = At(json, key);
  return value.is_string() ? value.get<std::string>() : "";
}

// Numbers of an array; what is none becomes 0, so that places stay.
std::vector<double> Numbers(const Json& json) {
  std::vector<double> numbers;
  if (json.is_array()) {
    for (const Json& item : json) numbers.push_back(AsNumber(item).value_or(0));
  }
  return numbers;
}

void AddFact(const Json& json, const char* key, const char* name, Facts* facts) {
  const Json& value = At(json, key);
  if (value.is_string() && !value.get<std::string>().empty()) facts->emplace_back(name, value.get<std::string>());
  if (value.is_number_integer()) facts->emplace_back(name, value.dump());
  if (value.is_number_float() && AsNumber(value)) facts->emplace_back(name, StrFormat("%.4g", *AsNumber(value)));
}

// ---- evaluations

std::optional<NeedleGrid> ReadNeedleGrid(const Json& json) {
  NeedleGrid grid{.lengths = Numbers(At(json, "lengths")), .depths = Numbers(At(json, "depths"))};
  const auto read = [&](const char* key, std::vector<std::vector<double>>* rows) {
    const Json& value = At(json, key);
    if (!value.is_array() || value.size() != grid.lengths.size()) return false;
    for (const Json& row : value) rows->push_back(Numbers(row));
    return std::ranges::all_of(*rows, [&](const auto& row) { return row.size() == grid.depths.size(); });
  };
  const bool complete = read("right", &grid.right) && read("asked", &grid.asked);
  return complete && !grid.lengths.empty() && !grid.depths.empty() ? std::optional(grid) : std::nullopt;
}

void ReadTasks(const Json& tasks, EvalRow* row) {
  constexpr std::pair<const char*, const char*> kScores[] = {{"last_word", "last word"},
                                                             {"questions", "questions"},
                                                             {"tool_calls", "tool calls"},
                                                             {"sequences", "several sequences"}};
  for (const auto& [key, name] : kScores) {
    const Json& score = At(tasks, key);
    const MaybeNumber right = Number(score, "right"), asked = Number(score, "asked");
    if (!right || asked.value_or(0) <= 0) continue;
    row->scores.push_back({name, *right, *asked, Number(score, "low"), Number(score, "high")});
  }
  row->needle_grid = ReadNeedleGrid(At(tasks, "needle_grid"));
  const Json& drift = At(tasks, "drift");
  row->drift_tokens = Number(drift, "tokens");
  row->drift_first_difference = Number(drift, "first_difference");
  row->drift_agreement = Number(drift, "agreement");
  row->context_shift_kl = Number(At(tasks, "context_shift"), "kl");
}

void ReadInterval(const Json& json, EvalRow* row) {
  constexpr double kNormal95 = 1.96;
  row->kl_low = Number(json, "kl_low");
  row->kl_high = Number(json, "kl_high");
  const MaybeNumber error = Number(json, "kl_stderr");
  if (!row->kl || !error || row->kl_low || row->kl_high) return;
  row->kl_low = *row->kl - kNormal95 * *error;
  row->kl_high = *row->kl + kNormal95 * *error;
}

void ReadMeasured(const Json& measured, EvalRow* row) {
  row->prefill_tokens_per_s = Number(measured, "prefill_tokens_per_s");
  row->decode_ms = Number(measured, "decode_ms");
  row->encode_share = Number(measured, "encode_share");
  row->process_bytes = Number(measured, "process_bytes");
  const Json& speeds = At(measured, "speed_by_context");
  if (!speeds.is_array()) return;
  for (const Json& speed : speeds) {
    const MaybeNumber tokens = Number(speed, "tokens");
    if (tokens) row->speed.push_back({*tokens, Number(speed, "decode_ms"), Number(speed, "prefill_tokens_per_s")});
  }
}

EvalRow ReadEvalRow(const Json& json) {
  EvalRow row{.cache = String(json, "cache"), .scheme = String(json, "scheme"), .bases = String(json, "bases")};
  row.kl = Number(json, "kl");
  row.kl_p99 = Number(json, "kl_p99");
  row.top1 = Number(json, "top1");
  row.perplexity = Number(json, "perplexity");
  row.needles_right = Number(json, "needles_right");
  ReadInterval(json, &row);
  const Json& memory = At(json, "memory");
  row.bits = Number(memory, "bits_per_value");
  row.cache_bytes = Number(memory, "cache_bytes");
  const Json& kinds = At(memory, "bits_by_kind");
  for (auto kind = kinds.begin(); kinds.is_object() && kind != kinds.end(); ++kind) {
    if (AsNumber(*kind).value_or(0) > 0) row.bits_by_kind.emplace_back(kind.key(), *AsNumber(*kind));
  }
  const Json& positions = At(json, "kl_by_position");
  row.window = Number(positions, "window").value_or(0);
  if (row.window > 0) row.kl_by_position = Numbers(At(positions, "kl"));
  row.attention_error_by_layer = Numbers(At(json, "attention_error_by_layer"));
  ReadTasks(At(json, "tasks"), &row);
  ReadMeasured(At(json, "measured"), &row);
  return row;
}

EvalInput ReadEval(const Json& json, const std::string& name) {
  EvalInput eval{.name = name, .model = String(json, "model"), .model_hash = String(json, "model_hash")};
  eval.text = String(json, "text");
  eval.skip = Number(json, "skip");
  eval.needles = Number(json, "needles");
  for (const Json& row : json["rows"]) eval.rows.push_back(ReadEvalRow(row));
  constexpr std::pair<const char*, const char*> kFacts[] = {{"model", "model"},
                                                            {"model_hash", "model hash"},
                                                            {"text", "text"},
                                                            {"tokens", "tokens"},
                                                            {"skip", "not scored"},
                                                            {"batch", "tokens per chunk, not scored part"},
                                                            {"scored_batch", "tokens per chunk, scored part"},
                                                            {"needles", "needles"},
                                                            {"seed", "seed"},
                                                            {"kvant_version", "kvant"}};
  for (const auto& [key, label] : kFacts) AddFact(json, key, label, &eval.facts);
  const Json& environment = At(json, "environment");
  AddFact(environment, "cpu", "processor", &eval.facts);
  AddFact(At(environment, "threads").is_null() ? json : environment, "threads", "threads", &eval.facts);
  AddFact(environment, "system", "system", &eval.facts);
  return eval;
}

bool IsEval(const Json& json) {
  const Json& rows = At(json, "rows");
  const bool named =
      String(json, "format") == "kvant-eval" || (!json.contains("format") && json.contains("scored_batch"));
  return named && rows.is_array() && std::ranges::all_of(rows, [](const Json& row) { return row.contains("cache"); });
}

// ---- plans

// The number in "int:bits=3" or "int:3".
MaybeNumber BitsInName(const std::string& codec) {
  size_t at = codec.find("bits=");
  at = at == std::string::npos ? codec.find(':') : at + 4;
  if (at == std::string::npos) return {};
  double bits = 0;
  const auto [end, error] = std::from_chars(codec.data() + at + 1, codec.data() + codec.size(), bits);
  return error == std::errc{} && bits > 0 && bits <= 32 ? MaybeNumber(bits) : std::nullopt;
}

/// Bits of candidates by layer and side, as they were measured.
class CandidateBits {
 public:
  explicit CandidateBits(const Json& tuning) : tuning_(tuning) {}

  MaybeNumber Find(size_t layer, const char* side, const std::string& codec) const {
    const Json& candidates = At(tuning_, "candidates");
    const Json& costs = At(tuning_, "costs");
    if (!candidates.is_array() || !costs.is_array()) return BitsInName(codec);
    for (const Json& cost : costs) {
      const double candidate = Number(cost, "candidate").value_or(-1);
      if (Number(cost, "layer") != static_cast<double>(layer) || String(cost, "side") != side) continue;
      if (candidate < 0 || candidate >= static_cast<double>(candidates.size())) continue;
      if (candidates[static_cast<size_t>(candidate)] == codec) return Number(cost, "bits_per_value");
    }
    return BitsInName(codec);
  }

 private:
  const Json& tuning_;
};

// "k=int:bits=4 v=kivi:bits=2" -> the part behind `side`, up to a blank.
std::string CodecOf(const std::string& scheme, const std::string& side) {
  const size_t start = (" " + scheme).find(" " + side + "=");
  if (start == std::string::npos) return "";
  const size_t first = start + side.size() + 1;
  return scheme.substr(first, scheme.find(' ', first) - first);
}

MeasuredCache ReadMeasuredCache(const Json& json) {
  return {.cache = String(json, "cache"),
          .bits = Number(json, "bits_per_value"),
          .kl = Number(json, "kl"),
          .kl_stderr = Number(json, "kl_stderr")};
}

void ReadPlanFacts(const Json& json, PlanInput* plan) {
  AddFact(json, "model", "model", &plan->facts);
  AddFact(json, "model_hash", "model hash", &plan->facts);
  AddFact(json, "bits_per_value", "bits per value of sealed pages", &plan->facts);
  AddFact(json, "bytes_per_token", "bytes per token", &plan->facts);
  AddFact(json, "sink", "exact first rows", &plan->facts);
  AddFact(json, "recent", "exact newest rows", &plan->facts);
  AddFact(At(json, "measured"), "text", "measured on", &plan->facts);
  AddFact(At(json, "measured"), "tokens", "tokens measured on", &plan->facts);
  AddFact(At(json, "tuning"), "text", "tuned on", &plan->facts);
  AddFact(At(json, "tuning"), "tokens", "tokens tuned on", &plan->facts);
  AddFact(json, "kvant_version", "kvant", &plan->facts);
}

PlanInput ReadPlan(const Json& json, const std::string& name) {
  PlanInput plan{.name = name, .model = String(json, "model"), .model_hash = String(json, "model_hash")};
  const Json& tuning = At(json, "tuning");
  const CandidateBits bits(tuning);
  for (const Json& line : json["layers"]) {
    const std::string scheme = line.get<std::string>();
    PlanLayer layer{.key = {.codec = CodecOf(scheme, "k")}, .value = {.codec = CodecOf(scheme, "v")}};
    layer.key.bits = bits.Find(plan.layers.size(), "k", layer.key.codec);
    layer.value.bits = bits.Find(plan.layers.size(), "v", layer.value.codec);
    plan.layers.push_back(std::move(layer));
  }
  plan.measured = ReadMeasuredCache(At(json, "measured"));
  plan.predicted_kl = Number(At(json, "predicted"), "kl");
  plan.expected_gain = Number(tuning, "expected_gain");
  plan.proxy_rank_correlation = Number(tuning, "proxy_rank_correlation");
  plan.validation_rank_correlation = Number(tuning, "validation_rank_correlation");
  if (At(json, "uniform").is_array()) {
    for (const Json& uniform : json["uniform"]) plan.uniform.push_back(ReadMeasuredCache(uniform));
  }
  if (At(tuning, "validation").is_array()) {
    for (const Json& pair : tuning["validation"]) {
      const MaybeNumber predicted = Number(pair, "predicted_kl"), measured = Number(pair, "measured_kl");
      if (predicted && measured) plan.validation.emplace_back(*predicted, *measured);
    }
  }
  ReadPlanFacts(json, &plan);
  return plan;
}

bool IsPlan(const Json& json) {
  const Json& layers = At(json, "layers");
  return String(json, "format") == "kvant-plan" && layers.is_array() &&
         std::ranges::all_of(layers, [](const Json& line) { return line.is_string(); });
}

Status CheckVersion(const Json& json, int latest, const std::string& name) {
  const double version = Number(json, "format_version").value_or(1);
  if (version <= latest) return Status::Ok();
  return Status::NotSupported(StrFormat("%s: format version %g; accepted: up to %d", name.c_str(), version, latest));
}

}  // namespace

Result<ReportInput> ParseReportInput(std::string_view text, const std::string& name) {
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded())
    return Status::Corruption(name + ": not JSON; accepted: files of kvant eval --json and kvant tune");
  if (json.is_object() && IsEval(json)) {
    KVANT_TRY(CheckVersion(json, kEvalVersion, name));
    return ReportInput(ReadEval(json, name));
  }
  if (json.is_object() && IsPlan(json)) {
    KVANT_TRY(CheckVersion(json, kPlanVersion, name));
    return ReportInput(ReadPlan(json, name));
  }
  return Status::Corruption(name + ": JSON of another kind; accepted: files of kvant eval --json and kvant tune");
}

}  // namespace kvant
