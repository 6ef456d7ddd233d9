#include "codec/parts/gain_quantizer.h"

#include <cstring>

#include "codec/parts/strip.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/gain_quantizer_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, kStripRows>;
using DI = hn::RebindToSigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
constexpr DF df;
constexpr DI di;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));

// One vector of rows of a strip: where its values are and where its codes go.
struct Rows {
  const GainQuantizer& q;
  const float* values;  // value c of the rows at values + c * 16
  uint8_t* codes;       // of the first row
};

HWY_INLINE VF Value(const Rows& rows, int c) { return hn::LoadU(df, rows.values + c * kStripRows); }

HWY_INLINE VF Inverse(VF gain) {
  return hn::IfThenElseZero(hn::Gt(gain, hn::Set(df, kLeastRowGain)), hn::Div(hn::Set(df, 1.0f), gain));
}

// Four channels' codes as the bytes of a word per row, to where the rows keep them.
HWY_INLINE void StoreQuad(const Rows& rows, int first_channel, VI quad) {
  alignas(64) int32_t words[kStripRows];
  hn::Store(quad, di, words);
  const size_t stride = static_cast<size_t>(rows.q.num_tiles) * kTileChannels;
  for (int r = 0; r < kLanes; ++r)
    std::memcpy(rows.codes + static_cast<size_t>(r) * stride + first_channel, words + r, 4);
}

template <int kByte>
HWY_INLINE VI InsertByte(VI quad, VI code) {
  return hn::Or(quad, hn::ShiftLeft<8 * kByte>(code));
}

// Calls code_of(channel) for each channel of a tile and stores what it returns.
template <typename CodeOf>
HWY_INLINE void StoreTile(const Rows& rows, int tile, CodeOf code_of) {
  for (int c = tile * kTileChannels; c < (tile + 1) * kTileChannels; c += 4) {
    VI quad = code_of(c);
    quad = InsertByte<1>(quad, code_of(c + 1));
    quad = InsertByte<2>(quad, code_of(c + 2));
    StoreQuad(rows, c, InsertByte<3>(quad, code_of(c + 3)));
  }
}

// ------------------------------------------------------------------ codes of values of unit variance

// What one value becomes: its code's distance from the middle, and its magnitude in steps.
struct Coded {
  VF index;
  VF steps;
};

template <int kBits>
struct TableCoder {
  static constexpr int kHalf = 1 << (kBits - 1);
  VF thresholds[kHalf];
  VF rises[kHalf];  // steps between neighbouring magnitudes, whole or half numbers, so that sums of them are
                    // exact

  explicit HWY_INLINE TableCoder(const Codebook& book) {
    float last = 0.0f;
    for (int i = 0; i < kHalf; ++i) {
      const float steps = 0.5f * static_cast<float>(static_cast<int>(2.0f * book.magnitudes[i] / book.step + 0.5f));
      rises[i] = hn::Set(df, steps - last);
      last = steps;
      thresholds[i] = hn::Set(df, i + 1 < kHalf ? book.thresholds[i] : 0.0f);
    }
  }
  HWY_INLINE Coded operator()(VF magnitude) const {
    Coded coded = {hn::Zero(df), rises[0]};
    for (int i = 1; i < kHalf; ++i) {
      const auto above = hn::Gt(magnitude, thresholds[i - 1]);
      coded.index = hn::Add(coded.index, hn::IfThenElseZero(above, hn::Set(df, 1.0f)));
      coded.steps = hn::Add(coded.steps, hn::IfThenElseZero(above, rises[i]));
    }
    return coded;
  }
};

struct UniformCoder {
  VF inverse_step;
  VF last;

  explicit HWY_INLINE UniformCoder(const Codebook& book)
      : inverse_step(hn::Set(df, 1.0f / book.step)),
        last(hn::Set(df, static_cast<float>((1 << (book.bits - 1)) - 1))) {}
  HWY_INLINE Coded operator()(VF magnitude) const {
    const VF index = hn::Floor(hn::Min(hn::Mul(magnitude, inverse_step), last));
    return {index, hn::Add(index, hn::Set(df, 0.5f))};
  }
};

// ------------------------------------------------------------------ gain and scale

struct Sums {
  VF energy;
  VF dot;
  VF norm;
};

template <typename Coder>
HWY_INLINE void CodeTile(const Rows& rows, int tile, VF inverse, Sums* sums) {
  const Codebook& book = rows.q.books->by_bits[rows.q.bits[tile]];
  const Coder coder(book);
  const VF step = hn::Set(df, book.step);
  const VF half = hn::Set(df, static_cast<float>(1 << (book.bits - 1)));
  StoreTile(rows, tile, [&](int c) {
    const VF weight = hn::Set(df, rows.q.maybe_weights ? rows.q.maybe_weights[c] : 1.0f);
    const VF value = hn::Mul(Value(rows, c), inverse);
    const VF magnitude = hn::Abs(value);
    const Coded coded = coder(magnitude);
    const VF code_value = hn::Mul(coded.steps, step);
    sums->energy = hn::MulAdd(hn::Mul(weight, magnitude), magnitude, sums->energy);
    sums->dot = hn::MulAdd(hn::Mul(weight, magnitude), code_value, sums->dot);
    sums->norm = hn::MulAdd(hn::Mul(weight, code_value), code_value, sums->norm);
    const VF below = hn::Sub(hn::Sub(half, hn::Set(df, 1.0f)), coded.index);
    return hn::ConvertTo(di, hn::IfThenElse(hn::Ge(value, hn::Zero(df)), hn::Add(half, coded.index), below));
  });
}

void CodeTileOfWidth(const Rows& rows, int tile, VF inverse, Sums* sums) {
  switch (rows.q.bits[tile]) {
    case 1:
      return CodeTile<TableCoder<1>>(rows, tile, inverse, sums);
    case 2:
      return CodeTile<TableCoder<2>>(rows, tile, inverse, sums);
    case 3:
      return CodeTile<TableCoder<3>>(rows, tile, inverse, sums);
    case 4:
      return CodeTile<TableCoder<4>>(rows, tile, inverse, sums);
    default:
      return CodeTile<UniformCoder>(rows, tile, inverse, sums);
  }
}

HWY_INLINE VF Gain(const Rows& rows) {
  VF energy = hn::Zero(df);
  int count = 0;
  for (int tile = 0; tile < rows.q.num_tiles; ++tile) {
    if (rows.q.bits[tile] == 0) continue;
    count += kTileChannels;
    for (int c = tile * kTileChannels; c < (tile + 1) * kTileChannels; ++c) {
      energy = hn::MulAdd(Value(rows, c), Value(rows, c), energy);
    }
  }
  return count > 0 ? hn::Sqrt(hn::Div(energy, hn::Set(df, static_cast<float>(count)))) : hn::Zero(df);
}

void ClearTile(const Rows& rows, int tile) {
  StoreTile(rows, tile, [](int) { return hn::Zero(di); });
}

VF ScaleOfUnitCodes(ScaleRule rule, const Sums& sums) {
  switch (rule) {
    case ScaleRule::kUnbiased:
      return hn::Div(sums.energy, sums.dot);
    case ScaleRule::kNorm:
      return hn::Set(df, 1.0f);
    case ScaleRule::kSameNorm:
      return hn::Sqrt(hn::Div(sums.energy, sums.norm));
    default:
      return hn::Div(sums.dot, sums.norm);
  }
}

VF QuantizeGain(const Rows& rows) {
  const VF gain = Gain(rows);
  const VF inverse = Inverse(gain);
  Sums sums = {hn::Zero(df), hn::Zero(df), hn::Zero(df)};
  for (int tile = 0; tile < rows.q.num_tiles; ++tile) {
    if (rows.q.bits[tile] == 0) {
      ClearTile(rows, tile);
    } else {
      CodeTileOfWidth(rows, tile, inverse, &sums);
    }
  }
  const VF scale = hn::Mul(gain, ScaleOfUnitCodes(rows.q.rule, sums));
  return hn::IfThenElseZero(hn::Gt(sums.dot, hn::Zero(df)), scale);
}

VF QuantizeAbsMax(const Rows& rows) {
  const int bits = rows.q.bits[0];
  VF max = hn::Zero(df);
  for (int c = 0; c < rows.q.num_tiles * kTileChannels; ++c) max = hn::Max(max, hn::Abs(Value(rows, c)));
  const VF scale = hn::Div(max, hn::Set(df, static_cast<float>((1 << (bits - 1)) - 1)));
  const VF inverse = Inverse(scale);
  const VI center = hn::Set(di, 1 << (bits - 1));
  for (int tile = 0; tile < rows.q.num_tiles; ++tile) {
    StoreTile(rows, tile, [&](int c) { return hn::Add(hn::NearestInt(hn::Mul(Value(rows, c), inverse)), center); });
  }
  return scale;
}

void Quantize(const GainQuantizer& q, const float* strip, uint8_t* codes, float* scales) {
  const size_t stride = static_cast<size_t>(q.num_tiles) * kTileChannels;
  for (int lane = 0; lane < kStripRows; lane += kLanes) {
    const Rows rows = {q, strip + lane, codes + static_cast<size_t>(lane) * stride};
    hn::StoreU(q.rule == ScaleRule::kAbsMax ? QuantizeAbsMax(rows) : QuantizeGain(rows), df, scales + lane);
  }
}

const GainQuantizerKernels* Kernels() {
  static constexpr GainQuantizerKernels kKernels = {Quantize};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const GainQuantizerKernels& GetGainQuantizerKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
