#include "codec/parts/latent_codes.h"

#include <algorithm>
#include <cmath>
#include <iterator>

#include "base/check.h"
#include "codec/parts/fixed_point.h"

namespace kvant {

float LatentValue(const LatentCodes& codes, int bits, const std::byte* packed_tile, int token, int channel) {
  if (!codes.trellis || bits > kMaxTrellisBits) {
    return CodeValue(*codes.books, bits, TileCode(codes.order, bits, packed_tile, token, channel));
  }
  const Codebook& book = codes.books->by_bits[bits];
  const int level = TrellisLevels(bits)[TrellisWindow(codes.order, bits, packed_tile, token, channel)];
  return (static_cast<float>(level) - book.center) * book.step;
}

void SetRowCodes(const LatentCodes& codes, int token, const uint8_t* row_codes, std::byte* packed) {
  for (int tile = 0; tile < codes.num_tiles; packed += TileBytes(codes.bits[tile]), ++tile) {
    const int bits = codes.bits[tile];
    const auto set = codes.trellis && bits > 0 && bits <= kMaxTrellisBits ? SetTrellisSymbol : SetTileCode;
    for (int c = 0; c < kTileChannels; ++c) {
      set(codes.order, bits, token, c, row_codes[tile * kTileChannels + c], packed);
    }
  }
}

DeviceFormat LatentDeviceFormat(const LatentCodes& codes, ScaleRule rule) {
  const int bits = codes.bits[0];
  const Codebook& book = codes.books->by_bits[bits];
  DeviceFormat format = {
      .kind = codes.trellis ? CodeKind::kTrellis : CodeKind::kLevels, .bits = bits, .step = book.step};
  for (int i = 0; i < (codes.trellis ? kTrellisWindows : 1 << bits); ++i) {
    const int level = codes.trellis             ? TrellisLevels(bits)[i]
                      : codes.books->use_levels ? codes.books->levels.by_bits[bits][i]
                                                : i;
    format.levels[i] = static_cast<float>(level) - book.center;
  }
  format.encodable = rule == ScaleRule::kUnbiased || rule == ScaleRule::kLeastSquares;
  format.unbiased = rule == ScaleRule::kUnbiased;
  std::copy(std::begin(book.thresholds), std::end(book.thresholds), format.thresholds);
  return format;
}

namespace {

// The tiles of a run as `kernels` read them. Where they take no trellis, its symbols are expanded to levels first: those of a
// block fit the first-level cache.
class Tiles {
 public:
  Tiles(const LatentCodes& codes, const std::byte* packed, bool reads_trellis, ReadAhead* maybe_ahead)
      : matrix_{packed, codes.bits, codes.num_tiles, codes.books->levels_or_null(), maybe_ahead, codes.trellis} {
    if (!codes.trellis || reads_trellis) return;
    GetTrellisExpander()(codes.order, codes.bits, codes.num_tiles, packed, levels_);
    for (size_t tile = 0; tile < std::size(bits_); ++tile) {
      bits_[tile] = static_cast<int>(tile) < codes.num_tiles && codes.bits[tile] > 0 ? 8 : 0;
    }
    matrix_ = {levels_, bits_, codes.num_tiles, nullptr, maybe_ahead, false};
  }
  const TileMatrix& matrix() const { return matrix_; }

 private:
  TileMatrix matrix_;
  uint8_t bits_[kMaxStripDim / kTileChannels];
  alignas(64) std::byte levels_[kTokensPerPage * kMaxStripDim];
};

const Codebook& BookOf(const LatentCodes& codes, int channel) {
  return codes.books->by_bits[codes.bits[channel / kTileChannels]];
}

// What the levels' centres add to every sum: the quantised query weighted with the centre of its tile.
int32_t CentreOffset(const LatentCodes& codes, const int8_t* columns, int planes) {
  double sum = 0.0;
  for (int tile = 0; tile < codes.num_tiles; ++tile) {
    int total = 0;
    for (int c = tile * kTileChannels; c < (tile + 1) * kTileChannels; ++c) {
      total += planes == 2 ? columns[c] * 128 + columns[codes.channels() + c] : columns[c];
    }
    sum += codes.books->by_bits[codes.bits[tile]].center * static_cast<double>(total);
  }
  return static_cast<int32_t>(std::nearbyint(sum));
}

}  // namespace

void PrepareLatents(const LatentCodes& codes, const float* latents, size_t stride, int heads,
                    const LatentQuery& query) {
  KVANT_DCHECK(codes.channels() <= kMaxStripDim);
  alignas(64) float steps[kMaxStripDim];
  for (int c = 0; c < codes.channels(); ++c) steps[c] = BookOf(codes, c).step;
  GetFixedPointKernels().quantize_query(latents, stride, heads, codes.channels(), query.planes, steps, query.operand,
                                        query.unit, query.offset);
  for (int h = 0; h < heads; ++h) {
    query.offset[h] = CentreOffset(codes, query.operand + h * query.planes * codes.channels(), query.planes);
  }
}

void ScoreLatents(const LatentCodes& codes, const std::byte* packed, const float* token_scales,
                  const LatentQuery& query, int heads, const float* bias, Store store, float* scores,
                  ReadAhead* maybe_ahead) {
  alignas(64) int32_t sums[kMaxHeads * 2 * kTokensPerPage];
  alignas(64) float own[kMaxHeads * kTokensPerPage];
  float* out = store == Store::kSet ? scores : own;
  const TileKernels kernels = GetTileKernels();
  const Tiles tiles(codes, packed, kernels.reads_trellis, maybe_ahead);
  kernels.score(tiles.matrix(), query.operand, heads * query.planes, 0, kTokensPerPage, sums);
  GetFixedPointKernels().finish_scores(sums, heads, query.planes, 0, kTokensPerPage, query.unit, query.offset, 1,
                                       token_scales, bias, out);
  if (store == Store::kSet) return;
  for (int i = 0; i < heads * kTokensPerPage; ++i) scores[i] += own[i];
}

void AccumulateLatents(const LatentCodes& codes, const std::byte* packed, const float* token_scales,
                       const float* weights, int heads, float* acc, size_t acc_stride, float* sums,
                       ReadAhead* maybe_ahead) {
  alignas(64) int8_t operand[kMaxHeads * 2 * kTokensPerPage];
  float unit[kMaxHeads];
  float sum[kMaxHeads];
  const int planes = GetFixedPointKernels().quantize_weights(weights, heads, token_scales,
                                                             OnePlaneWeight(codes.widest()), operand, unit, sum);
  const TileKernels kernels = GetTileKernels();
  const Tiles tiles(codes, packed, kernels.reads_trellis, maybe_ahead);
  kernels.accumulate(tiles.matrix(), operand, heads, planes, unit, acc, acc_stride);
  for (int h = 0; h < heads; ++h) sums[static_cast<size_t>(h) * acc_stride] += sum[h];
}

void RestoreLatents(const LatentCodes& codes, const float* sums, size_t sums_stride, int heads, float* strip) {
  for (int c = 0; c < codes.channels(); ++c) {
    const Codebook& book = BookOf(codes, c);
    for (int h = 0; h < heads; ++h) {
      float& value = strip[c * kStripRows + h];
      value = (value - book.center * sums[static_cast<size_t>(h) * sums_stride]) * book.step;
    }
  }
}

void PackLatents(const LatentCodes& codes, const uint8_t* unpacked, std::byte* packed) {
  (codes.trellis ? TrellisPack : GetTileKernels().pack)(codes.order, codes.bits, codes.num_tiles, unpacked, packed);
}

void UnpackLatents(const LatentCodes& codes, const std::byte* packed, uint8_t* out) {
  const Tiles tiles(codes, packed, false, nullptr);
  const TileMatrix& m = tiles.matrix();
  GetTileKernels().unpack(codes.order, m.bits, m.num_tiles, m.packed, out);
}

void LoadLatents(const LatentCodes& codes, const uint8_t* unpacked, const float* token_scales, float* strip) {
  for (int tile = 0; tile < codes.num_tiles; ++tile) {
    const int bits = codes.bits[tile];
    const Codebook& book = codes.books->by_bits[bits];
    const bool looked_up = codes.books->use_levels && bits <= 4;
    const int count = 1 << (codes.trellis ? kMaxCodeWidth : bits);  // trellis levels are bytes
    float values[1 << kMaxCodeWidth];
    for (int code = 0; code < count; ++code) {
      const int level = looked_up ? codes.books->levels.by_bits[bits][code] : code;
      values[code] = (static_cast<float>(level) - book.center) * book.step;
    }
    for (int c = tile * kTileChannels; c < (tile + 1) * kTileChannels; ++c) {
      for (int r = 0; r < kStripRows; ++r) {
        strip[c * kStripRows + r] = values[unpacked[r * codes.channels() + c]] * token_scales[r];
      }
    }
  }
}

}  // namespace kvant
