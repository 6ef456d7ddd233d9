#include "llama/runner_cache.h"

#include <algorithm>
#include <array>
#include <string>

#include "codec/calibrated.h"
#include "kvant/plan.h"

namespace kvant {
namespace {

constexpr std::string_view kStockPrefix = "llama:";

// What llama.cpp's flash attention reads on a CPU.
constexpr std::array kStockTypes = {GGML_TYPE_F16,  GGML_TYPE_BF16, GGML_TYPE_Q8_0, GGML_TYPE_Q5_1,
                                    GGML_TYPE_Q5_0, GGML_TYPE_Q4_1, GGML_TYPE_Q4_0, GGML_TYPE_IQ4_NL};

Result<ggml_type> ParseStockType(std::string_view name) {
  std::string accepted;
  for (const ggml_type type : kStockTypes) {
    if (name == ggml_type_name(type)) return type;
    accepted += (accepted.empty() ? "" : ", ") + std::string(ggml_type_name(type));
  }
  return Status::InvalidArgument("cache llama:" + std::string(name) + ": unknown type; accepted: " + accepted);
}

// A word that is no scheme may be meant as one of llama.cpp's types.
Status WithStockNames(std::string_view text, const Status& status) {
  if (text.find_first_of("=:") != std::string_view::npos || IsPlanPath(text)) return status;
  return {status.code(), status.message() + ", f16 or a type of llama.cpp (llama:q8_0)"};
}

// Of one side of all layers.
std::string BasisSource(const Scheme& scheme, Side side, const std::vector<LayerShape>& layers,
                        const Calibration* maybe_calibration) {
  size_t with_bases = 0, calibrated = 0;
  for (size_t i = 0; i < layers.size(); ++i) {
    const CodecChoice& choice = scheme.Choice(static_cast<int>(i), side == Side::kKey);
    const Result<Codec> codec = MakeCodec(choice.name, choice.options,
                                          {.side = side,
                                           .dim = side == Side::kKey ? layers[i].k_dim : layers[i].v_dim,
                                           .layer = static_cast<int>(i),
                                           .num_layers = static_cast<int>(layers.size())});
    if (!codec.ok() || codec->state->basis_bytes == 0) continue;
    ++with_bases;
    const auto bases = FindBases(*codec, choice.options, maybe_calibration, static_cast<int>(i), layers[i].kv_heads);
    calibrated += bases.ok() && *bases != nullptr;
  }
  if (with_bases == 0) return "";
  if (calibrated == 0) return "fitted to the prompt";
  return calibrated == with_bases ? "calibrated" : "calibrated in a part of the layers";
}

}  // namespace

Result<Scheme> Runner::ReadScheme(const std::string& model_path, std::string_view cache) {
  if (!IsPlanPath(cache)) return Scheme::Parse(cache);
  const std::string path(cache);
  Result<Plan> plan = Plan::Load(path);
  if (!plan.ok()) return plan.status();
  const Result<std::string> hash = HashModel(model_path);
  if (!hash.ok()) return hash.status();
  KVANT_TRY(plan->CheckModel(*hash, path));
  return std::move(plan->scheme);
}

Result<CacheChoice> ParseCacheChoice(const std::string& model_path, std::string_view text) {
  CacheChoice choice;
  if (text == "f16") return choice;
  if (!text.starts_with(kStockPrefix)) {
    Result<Scheme> scheme = Runner::ReadScheme(model_path, text);
    if (!scheme.ok()) return WithStockNames(text, scheme.status());
    choice.scheme = std::move(scheme).value();
    return choice;
  }
  const std::string_view types = text.substr(kStockPrefix.size());
  const size_t slash = types.find('/');
  const Result<ggml_type> key = ParseStockType(types.substr(0, slash));
  const Result<ggml_type> value = slash == std::string_view::npos ? key : ParseStockType(types.substr(slash + 1));
  if (!key.ok()) return key.status();
  if (!value.ok()) return value.status();
  choice.key_type = *key;
  choice.value_type = *value;
  return choice;
}

Status CheckScheme(const Scheme& scheme, const std::vector<LayerShape>& layers, const Calibration* maybe_calibration) {
  KVANT_TRY(scheme.CheckLayers(static_cast<int>(layers.size())));
  for (size_t i = 0; i < layers.size(); ++i) {
    for (const Side side : {Side::kKey, Side::kValue}) {
      const CodecChoice& choice = scheme.Choice(static_cast<int>(i), side == Side::kKey);
      const int dim = side == Side::kKey ? layers[i].k_dim : layers[i].v_dim;
      const Result<Codec> codec = MakeCodec(
          choice.name, choice.options,
          {.side = side, .dim = dim, .layer = static_cast<int>(i), .num_layers = static_cast<int>(layers.size())});
      if (!codec.ok()) return codec.status();
      const auto bases = FindBases(*codec, choice.options, maybe_calibration, static_cast<int>(i), layers[i].kv_heads);
      if (!bases.ok()) return bases.status();
    }
  }
  return Status::Ok();
}

std::string DescribeBases(const Scheme& scheme, const std::vector<LayerShape>& layers,
                          const Calibration* maybe_calibration) {
  const std::string key = BasisSource(scheme, Side::kKey, layers, maybe_calibration);
  const std::string value = BasisSource(scheme, Side::kValue, layers, maybe_calibration);
  if (key == value) return key;
  if (key.empty() || value.empty()) return (key.empty() ? "V " : "K ") + key + value;
  return "K " + key + ", V " + value;
}

size_t StockBytes(const CacheChoice& choice, const std::vector<LayerShape>& layers, int64_t rows) {
  size_t row_bytes = 0;
  for (const LayerShape& layer : layers) {
    row_bytes += ggml_row_size(choice.key_type, static_cast<int64_t>(layer.kv_heads) * layer.k_dim) +
                 ggml_row_size(choice.value_type, static_cast<int64_t>(layer.kv_heads) * layer.v_dim);
  }
  return row_bytes * static_cast<size_t>(rows);
}

CacheUse StockUse(const CacheChoice& choice, const std::vector<LayerShape>& layers, int64_t rows, int64_t allocated) {
  CacheUse use;
  use.footprint.by_kind[static_cast<size_t>(StreamKind::kCodes)] = StockBytes(choice, layers, rows);
  for (const LayerShape& layer : layers) {
    use.footprint.values += static_cast<size_t>(rows * layer.kv_heads * (layer.k_dim + layer.v_dim));
    use.footprint.rows += 2 * static_cast<size_t>(rows);
  }
  use.memory_bytes = StockBytes(choice, layers, allocated);
  use.fp16_bytes = 2 * use.footprint.values;
  return use;
}

}  // namespace kvant
