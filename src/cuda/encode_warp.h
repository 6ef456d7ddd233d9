// Encoding on the device, as what one warp does with one block: rows of fp16 to a sealed or an exact block in device order.
// Two stages: rows become bytes of codes and fp16 parameters in shared memory, some rows at a time over the lanes; then
// every lane gathers the words it will read as operands. The bytes are those of the CPU codec in device order; where a codec
// sums floats before it rounds, they differ as they do between SIMD targets.
#pragma once

#include "codec/device_format.h"
#include "cuda/attend_params.h"
#include "cuda/fragment_order.h"
#include "cuda/prepare_merge_warp.h"

namespace kvant::cuda {

/// Bytes between the codes of successive tokens in shared memory: the second stage reads codes of 8 tokens at a time, which must
/// not lie in one bank.
KVANT_HD constexpr int CodeStride(int dim) { return dim + 16; }

/// What the first stage leaves for the second; one per warp. kRows: of parameters, each for the channels or the tokens of a
/// group.
template <int kDim, int kRows = 1>
struct EncodeSpace {
  static constexpr int kParams = kRows * (kDim > kPageTokens ? kDim : kPageTokens);
  alignas(16) uint8_t codes[kPageTokens * CodeStride(kDim)];
  uint16_t scales[kParams];
  uint16_t shifts[kParams];
};

/// Rows in the first stage: a lane has 16 channels of one, a warp several rows at once.
template <int kDim>
constexpr int kEncodeLanes = kDim / 16;
template <class W, int kDim>
using EncodeRow = WarpRow<W, kDim, kEncodeLanes<kDim>>;

/// Where a lane is in them.
template <int kDim>
struct RowPlace {
  static constexpr int kStep = kLanes / kEncodeLanes<kDim>;  ///< rows of a warp
  int page;
  int head;
  int lane;

  KVANT_HD int row() const { return lane / kEncodeLanes<kDim>; }             ///< of the warp's rows
  KVANT_HD int channel() const { return lane % kEncodeLanes<kDim> * 16; }    ///< the first
  KVANT_HD bool is_first() const { return lane % kEncodeLanes<kDim> == 0; }  ///< of its row
};

template <class W, int kDim>
KVANT_HD inline EncodeRow<W, kDim> LoadRow(const EncodeParams& p, const RowPlace<kDim>& at, int token) {
  EncodeRow<W, kDim> row;
  const int64_t index = (static_cast<int64_t>(at.page) * kPageTokens + token) * p.kv_heads + at.head;
  const uint16_t* from = p.rows + index * kDim + at.channel();
  row.SetHalves(W::LoadConstant(reinterpret_cast<const typename EncodeRow<W, kDim>::Halves*>(from)));
  return row;
}

/// A lane's codes of a row.
struct alignas(16) Codes16 {
  uint8_t value[16];
};
template <int kDim>
KVANT_HD inline void StoreCodes(const Codes16& codes, const RowPlace<kDim>& at, int token, uint8_t* to) {
  *reinterpret_cast<Codes16*>(to + token * CodeStride(kDim) + at.channel()) = codes;
}

// ---- first stage: uniform groups, as FitGroup and EncodeUniform of codec/parts/uniform_groups.h

template <class W, int kBits>
struct UniformFit {
  static constexpr float kTop = static_cast<float>((1 << kBits) - 1);
  uint16_t scale_bits;
  uint16_t min_bits;
  float min;
  float inverse;

  UniformFit() = default;
  KVANT_HD UniformFit(float least, float greatest) {
    min_bits = W::FloatToHalf(least + 0.0f);
    min = W::HalfToFloat(min_bits);
    scale_bits = W::FloatToHalf(W::Max(greatest - min, 0.0f) / kTop + 0.0f);
    const float scale = W::HalfToFloat(scale_bits);
    inverse = scale > 0.0f ? 1.0f / scale : 0.0f;
  }
  KVANT_HD uint8_t Code(float value) const {
    const float x = W::Max((value - min) * inverse, 0.0f);
    return static_cast<uint8_t>(W::Round(x < kTop ? x : kTop));
  }
};

/// Keys: a group is a channel in 64 / kGroups tokens.
template <class W, int kDim, int kBits, int kGroups>
KVANT_HD void UniformKeyCodes(const EncodeParams& p, const RowPlace<kDim>& at, EncodeSpace<kDim, kGroups>* space) {
  using Row = EncodeRow<W, kDim>;
  constexpr int kTokens = kPageTokens / kGroups;
  for (int first = 0; first < kPageTokens; first += kTokens) {
    Row low, high;  // -least, greatest
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) low.value[i] = high.value[i] = -65504.0f;
    KVANT_UNROLL_BY(4)
    for (int t = first + at.row(); t < first + kTokens; t += at.kStep) {
      const Row row = LoadRow<W, kDim>(p, at, t);
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) {
        low.value[i] = W::Max(low.value[i], -row.value[i]);
        high.value[i] = W::Max(high.value[i], row.value[i]);
      }
    }
    UniformFit<W, kBits> fits[Row::kCount];
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      fits[i] = UniformFit<W, kBits>(-MaxOfLanes<W, kLanes, kEncodeLanes<kDim>>(low.value[i]),
                                     MaxOfLanes<W, kLanes, kEncodeLanes<kDim>>(high.value[i]));
      if (at.row() != 0) continue;
      space->scales[first / kTokens * kDim + at.channel() + i] = fits[i].scale_bits;
      space->shifts[first / kTokens * kDim + at.channel() + i] = fits[i].min_bits;
    }
    KVANT_UNROLL_BY(2)
    for (int t = first + at.row(); t < first + kTokens; t += at.kStep) {
      const Row row = LoadRow<W, kDim>(p, at, t);
      Codes16 codes;
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) codes.value[i] = fits[i].Code(row.value[i]);
      StoreCodes(codes, at, t, space->codes);
    }
  }
}

/// Values: a group is kDim / kGroups channels of a token.
template <class W, int kDim, int kBits, int kGroups>
KVANT_HD void UniformValueCodes(const EncodeParams& p, const RowPlace<kDim>& at, EncodeSpace<kDim, kGroups>* space) {
  using Row = EncodeRow<W, kDim>;
  constexpr int kGroupLanes = kEncodeLanes<kDim> / kGroups;
  const int group = at.channel() * kGroups / kDim;
  KVANT_UNROLL_BY(4)
  for (int t = at.row(); t < kPageTokens; t += at.kStep) {
    const Row row = LoadRow<W, kDim>(p, at, t);
    float low = -row.value[0], high = row.value[0];
    KVANT_UNROLL
    for (int i = 1; i < Row::kCount; ++i) {
      low = W::Max(low, -row.value[i]);
      high = W::Max(high, row.value[i]);
    }
    const UniformFit<W, kBits> fit(-MaxOfLanes<W, kGroupLanes>(low), MaxOfLanes<W, kGroupLanes>(high));
    if (at.lane % kGroupLanes == 0) {
      space->scales[group * kPageTokens + t] = fit.scale_bits;
      space->shifts[group * kPageTokens + t] = fit.min_bits;
      if (W::HalfToFloat(fit.scale_bits) > kMaxValueScale) *p.refused = 1;
    }
    Codes16 codes;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) codes.value[i] = fit.Code(row.value[i]);
    StoreCodes(codes, at, t, space->codes);
  }
}

// ---- rows of levels, as QuantizeRow of codec/parts/gain_quantizer.h has them after a Hadamard transform

/// Means of the channels over the page, in fp16; zeros for codecs without. Also to `store_to` [dim], if not null.
template <class W, int kDim>
KVANT_HD EncodeRow<W, kDim> PageMeans(const EncodeParams& p, const RowPlace<kDim>& at, uint16_t* store_to) {
  using Row = EncodeRow<W, kDim>;
  Row means;
  if (p.offsets.shifts < 0) return means;
  KVANT_UNROLL_BY(4)
  for (int t = at.row(); t < kPageTokens; t += at.kStep) {
    const Row row = LoadRow<W, kDim>(p, at, t);
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) means.value[i] += row.value[i];
  }
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) {
    const float sum = SumOfLanes<W, kLanes, kEncodeLanes<kDim>>(means.value[i]);
    const uint16_t mean = W::FloatToHalf(sum / static_cast<float>(kPageTokens));
    if (store_to && at.row() == 0) store_to[at.channel() + i] = mean;
    means.value[i] = W::HalfToFloat(mean);
  }
  return means;
}

/// A token's row without the means, mapped, and its gain: the root of its mean square.
template <class W, int kDim>
KVANT_HD EncodeRow<W, kDim> MappedRow(const EncodeParams& p, const RowPlace<kDim>& at, int token,
                                      const EncodeRow<W, kDim>& means, float* gain) {
  EncodeRow<W, kDim> row = LoadRow<W, kDim>(p, at, token);
  KVANT_UNROLL
  for (int i = 0; i < row.kCount; ++i) row.value[i] -= means.value[i];
  row.Signs(at.lane);
  row.Butterfly(at.lane);
  float energy = 0.0f;
  KVANT_UNROLL
  for (int i = 0; i < row.kCount; ++i) energy += row.value[i] * row.value[i];
  *gain = W::Sqrt(SumOfLanes<W, kEncodeLanes<kDim>>(energy) / static_cast<float>(kDim));
  return row;
}
template <class W>
KVANT_HD inline float InverseGain(float gain) {
  constexpr float kLeastGain = 1e-30f;  // kLeastRowGain of codec/parts/gain_quantizer.h
  return gain > kLeastGain ? 1.0f / gain : 0.0f;
}

/// How well the codes of a row stand for it: sums over its channels.
struct RowSums {
  float energy = 0.0f;  ///< value * value
  float dot = 0.0f;     ///< value * code
  float norm = 0.0f;    ///< code * code

  KVANT_HD void Add(float value, float code) {
    energy += value * value;
    dot += value * code;
    norm += code * code;
  }
  /// The row's scale, over kRowLanes lanes, as fp16; refuses what kernels cannot take.
  template <class W, int kRowLanes>
  KVANT_HD uint16_t Scale(const EncodeParams& p, float gain) const {
    const float all_energy = SumOfLanes<W, kRowLanes>(energy);
    const float all_dot = SumOfLanes<W, kRowLanes>(dot);
    const float all_norm = SumOfLanes<W, kRowLanes>(norm);
    const float scale = all_dot > 0.0f ? gain * (p.unbiased ? all_energy / all_dot : all_dot / all_norm) : 0.0f;
    if (!(scale <= (p.is_value ? kMaxValueScale : 65504.0f))) *p.refused = 1;
    return W::FloatToHalf(scale);
  }
};

// ---- second stage

/// Token and channel of what a lane has in a half of a register.
struct TokenChannel {
  int token;
  int channel;
};
KVANT_HD inline TokenChannel PlaceOf(bool is_value, int unit, int step, int reg, int half, int lane) {
  const int row = lane / 4 + reg % 2 * 8;
  const int column = lane % 4 * 2 + reg / 2 * 8 + half;
  const int token = unit * kUnitTokens + (is_value ? column : row);
  const int channel = step * kStepChannels + (is_value ? row : column);
  return {token, channel};
}
/// Index of its code.
template <int kDim>
KVANT_HD int CodeAt(bool is_value, int unit, int step, int reg, int half, int lane) {
  const TokenChannel at = PlaceOf(is_value, unit, step, reg, half, lane);
  return at.token * CodeStride(kDim) + at.channel;
}

/// Words of one plane of codes: bits kDone.. of each.
template <class W, int kDim, int kWidth, int kDone>
KVANT_HD void PackPlane(const uint8_t* codes, bool is_value, int lane, std::byte* plane) {
  constexpr int kWords = UnitWords(kDim, kWidth);
  for (int unit = 0; unit < kUnits; ++unit) {
    uint32_t word[kWords];
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) word[i] = 0;
    KVANT_UNROLL
    for (int i = 0; i < kDim / kStepChannels * 8; ++i) {
      const int step = i / 8, reg = i / 2 % 4, half = i % 2;
      const Field field = FieldOf(kDim, kWidth, step, reg);
      const uint32_t code = codes[CodeAt<kDim>(is_value, unit, step, reg, half, lane)];
      word[field.word] |= (code >> kDone & ((1u << kWidth) - 1))
                          << FieldShift(PairOrder::kSplit, kWidth, field.index, half);
    }
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) {
      reinterpret_cast<uint32_t*>(plane)[PlaneWord(kDim, kWidth, unit, lane, i)] = word[i];
    }
  }
}

template <class W, int kDim, int kBits>
KVANT_HD void PackCodes(const uint8_t* codes, bool is_value, int lane, std::byte* to) {
  if constexpr (kBits == 3) {
    PackPlane<W, kDim, 2, 0>(codes, is_value, lane, to);
    PackPlane<W, kDim, 1, 2>(codes, is_value, lane, to + PlaneBytes(kDim, 2));
  } else {
    PackPlane<W, kDim, kBits, 0>(codes, is_value, lane, to);
  }
}

/// Parameters [rows][dim] by channels, or [rows][64] by tokens, in the order of the device.
template <int kDim>
KVANT_HD inline void StoreParams(const uint16_t* params, int rows, bool by_channel, TokenOrder order, int lane,
                                 std::byte* to) {
  const int length = by_channel ? kDim : kPageTokens;
  for (int i = lane; i < rows * length; i += kLanes) {
    const int at = i % length;
    const int device = by_channel ? ChannelParam(at) : TokenParamOf(order, kDim, rows, at);
    reinterpret_cast<uint16_t*>(to)[i - at + device] = params[i];
  }
}

// ---- one block

KVANT_HD inline std::byte* BlockOf(const EncodeParams& p, int page, int head) {
  return p.pool + BlockOffset(p.slots[page], p.slot_stride, head, p.offsets.bytes);
}

/// Uniform codes. kRows: of parameters.
template <class W, int kDim, int kBits, int kRows>
KVANT_HD void EncodeWarp(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim, kRows>* space) {
  if (p.slots[page] < 0) return;
  std::byte* block = BlockOf(p, page, head);
  const RowPlace<kDim> at = {page, head, lane};
  if (p.is_value) {
    UniformValueCodes<W, kDim, kBits, kRows>(p, at, space);
  } else {
    UniformKeyCodes<W, kDim, kBits, kRows>(p, at, space);
  }
  W::Sync();
  PackCodes<W, kDim, kBits>(space->codes, p.is_value, lane, block + p.offsets.codes);
  constexpr TokenOrder kOrder = TokenOrder::kUnits;
  StoreParams<kDim>(space->scales, kRows, !p.is_value, kOrder, lane, block + p.offsets.scales);
  StoreParams<kDim>(space->shifts, kRows, !p.is_value, kOrder, lane, block + p.offsets.shifts);
}

/// Exact blocks: every lane gathers the words of its operands.
template <class W, int kDim>
KVANT_HD void StoreExactWarp(const EncodeParams& p, int page, int head, int lane) {
  if (p.slots[page] < 0) return;
  constexpr int kWords = UnitWords(kDim, 16);
  auto* block = reinterpret_cast<uint32_t*>(BlockOf(p, page, head));
  KVANT_UNROLL_BY(16)
  for (int i = 0; i < kUnits * kWords; ++i) {
    uint32_t word = 0;
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const TokenChannel at = PlaceOf(p.is_value, i / kWords, i % kWords / 4, i % 4, half, lane);
      const int64_t row = (static_cast<int64_t>(page) * kPageTokens + at.token) * p.kv_heads + head;
      word |= static_cast<uint32_t>(p.rows[row * kDim + at.channel]) << (16 * half);
    }
    block[PlaneWord(kDim, 16, i / kWords, lane, i % kWords)] = word;
  }
}

}  // namespace kvant::cuda
