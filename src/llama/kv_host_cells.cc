// Cells in host memory: a KvCache.
#include <algorithm>
#include <numeric>
#include <optional>

#include "llama/kv_cells.h"
#include "llama/position_stamp.h"

namespace kvant {
namespace {

// Rows written between two seals when a state is restored: as many as a usual chunk of prefill, so that at most
// these are held at 16 bits, and a basis is fitted to as many rows as it was when they came from the model.
constexpr int64_t kRestoreRows = 512;

class HostCells : public KvCells {
 public:
  explicit HostCells(std::unique_ptr<KvCache> cache) : cache_(std::move(cache)) {}

  Status Read(const KvTensor& tensor, int stream, int64_t first, int64_t count, F16* rows) override;
  Status Write(const KvTensor& tensor, int stream, int64_t first, int64_t count, const F16* rows) override;
  Status Fork(const KvTensor& tensor, int from, int to) override { return store(tensor).Fork(from, to); }
  Status Truncate(const KvTensor& tensor, int stream, int64_t rows) override {
    return store(tensor).Truncate(stream, rows);
  }
  int64_t num_rows(const KvTensor& tensor, int stream) const override { return store(tensor).num_rows(stream); }
  void Clear() override {
    for (int stream = 0; stream < cache_->config().num_sequences; ++stream) cache_->Clear(stream);
  }
  Footprint footprint() const override { return cache_->footprint(); }
  size_t memory_bytes() const override { return cache_->memory_bytes(); }
  double seal_seconds() const override { return cache_->seal_seconds(); }
  KvCache* host() override { return cache_.get(); }

 private:
  KvStore& store(const KvTensor& tensor) const {
    return tensor.name.side == Side::kKey ? cache_->keys(tensor.index) : cache_->values(tensor.index);
  }
  Result<std::vector<int32_t>> StampedPositions(const KvTensor& tensor, std::span<const int64_t> rows,
                                                const F16* data) const;

  std::unique_ptr<KvCache> cache_;
};

Status HostCells::Read(const KvTensor& tensor, int stream, int64_t first, int64_t count, F16* rows) {
  const KvStore& from = store(tensor);
  KVANT_TRY(from.Read(Team(), stream, first, count, {rows, static_cast<size_t>(tensor.row_values)}));
  for (int64_t row = 0; row < count && from.keeps_positions(); ++row) {
    StampPosition(from.Position(stream, first + row), rows + row * tensor.row_values);
  }
  return Status::Ok();
}

Status HostCells::Write(const KvTensor& tensor, int stream, int64_t first, int64_t count, const F16* rows) {
  std::vector<int64_t> numbers;
  for (int64_t done = 0; done < count; done += kRestoreRows) {
    numbers.resize(static_cast<size_t>(std::min(kRestoreRows, count - done)));
    std::iota(numbers.begin(), numbers.end(), first + done);
    const F16* data = rows + done * tensor.row_values;
    const Result<std::vector<int32_t>> positions = StampedPositions(tensor, numbers, data);
    if (!positions.ok()) return positions.status();
    KVANT_TRY(store(tensor).Write(Team(), stream, numbers, {data, tensor.row_bytes(), true}, *positions));
    KVANT_TRY(store(tensor).Seal(Team(), stream));
  }
  return Status::Ok();
}

// What Read stamped; nothing where positions do not matter.
Result<std::vector<int32_t>> HostCells::StampedPositions(const KvTensor& tensor, std::span<const int64_t> rows,
                                                         const F16* data) const {
  std::vector<int32_t> positions;
  if (!store(tensor).keeps_positions()) return positions;
  for (const int64_t row : rows) {
    const std::optional<int32_t> position = StampedPosition(data);
    if (!position) {
      return Status::NotSupported(StrFormat(
          "layer %d, cell %lld: the restored key does not say its position, which codec %s needs; only states "
          "that kvant saved with such a codec can be restored",
          tensor.name.layer, static_cast<long long>(row),
          cache_->config().scheme.Choice(tensor.name.layer, true).name.c_str()));
    }
    positions.push_back(*position);
    data += tensor.row_values;
  }
  return positions;
}

}  // namespace

Result<std::unique_ptr<KvCells>> MakeHostCells(const KvSettings& settings, const std::vector<KvLayer>& layers) {
  CacheConfig config{.scheme = settings.scheme,
                     .layers = {},
                     .num_sequences = layers.empty() ? 1 : layers.front().keys->streams,
                     .memory_limit_bytes = settings.memory_limit_bytes,
                     .maybe_calibration = settings.maybe_calibration,
                     .layer_numbers = {}};
  for (const auto& [keys, values] : layers) {
    config.layers.push_back({.kv_heads = keys->heads, .k_dim = keys->dim, .v_dim = values->dim});
    config.layer_numbers.push_back(keys->name.layer);
    config.ropes.push_back(keys->rope);
  }
  Result<std::unique_ptr<KvCache>> cache = KvCache::Create(config);
  if (!cache.ok()) return cache.status();
  return std::unique_ptr<KvCells>(std::make_unique<HostCells>(std::move(cache).value()));
}

}  // namespace kvant
