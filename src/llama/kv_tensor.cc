#include "llama/kv_tensor.h"

#include <charconv>

namespace kvant {

bool KvTensor::Contains(const void* address) const {
  const auto* a = static_cast<const std::byte*>(address);
  return a >= base && a < base + bytes();
}

KvRange KvTensor::Locate(const void* address) const {
  const size_t offset = static_cast<size_t>(static_cast<const std::byte*>(address) - base);
  const auto row = static_cast<int64_t>(offset / row_bytes());
  return {static_cast<int>(row / cells), row % cells, offset % row_bytes()};
}

Result<KvRange> KvTensor::PlaceOf(int64_t cell) const {
  if (cell >= 0 && cell < cells * streams) return KvRange{static_cast<int>(cell / cells), cell % cells};
  return Status::Internal(StrFormat("the host wrote to cell %lld of %lld", static_cast<long long>(cell),
                                    static_cast<long long>(cells * streams)));
}

std::optional<KvName> ParseKvName(std::string_view name) {
  constexpr std::string_view kKeyPrefix = "cache_k_l";
  constexpr std::string_view kValuePrefix = "cache_v_l";
  static_assert(kKeyPrefix.size() == kValuePrefix.size());
  const bool key = name.starts_with(kKeyPrefix);
  if (!key && !name.starts_with(kValuePrefix)) return std::nullopt;
  const std::string_view digits = name.substr(kKeyPrefix.size());
  int layer = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), layer);
  if (error != std::errc() || end != digits.data() + digits.size() || layer < 0) return std::nullopt;
  return KvName{key ? Side::kKey : Side::kValue, layer};
}

bool IsCacheName(std::string_view name) { return name.starts_with("cache_"); }

Status CheckCacheTensor(const ggml_tensor& tensor) {
  if (!ParseKvName(tensor.name)) {
    return Status::NotSupported(
        StrFormat("the model keeps '%s', a recurrent or indexer state; only models "
                  "with plain attention layers are supported",
                  tensor.name));
  }
  if (tensor.type != GGML_TYPE_F16) {
    return Status::NotSupported(
        StrFormat("the host asked for a %s cache ('%s'); leave the K and V cache types "
                  "at f16, kvant compresses by its own scheme",
                  ggml_type_name(tensor.type), tensor.name));
  }
  return Status::Ok();
}

KvTensor MakeKvTensor(const ggml_tensor& tensor) {
  return {.name = *ParseKvName(tensor.name),
          .base = static_cast<const std::byte*>(tensor.data),
          .row_values = tensor.ne[0],
          .cells = tensor.ne[1],
          .streams = static_cast<int>(tensor.ne[2])};
}

}  // namespace kvant
