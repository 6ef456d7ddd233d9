// Encoding on the device, as what one warp does with one block: rows of fp16 to a sealed or an exact block in device order.
// Two stages: rows become bytes of codes and fp16 parameters in shared memory, one row after the other over the lanes; then
// every lane gathers the words it will read as operands. The bytes are those of the CPU codec in device order; where a codec
// sums floats before it rounds, they differ as they do between SIMD targets.
#pragma once

#include "codec/device_format.h"
#include "cuda/attend_params.h"
#include "cuda/fragment_order.h"
#include "cuda/prepare_merge_warp.h"

namespace kvant::cuda {

/// What the first stage leaves for the second; one per warp. kRows: of parameters, each for the channels or the tokens of a
/// group.
template <int kDim, int kRows = 1>
struct EncodeSpace {
  static constexpr int kParams = kRows * (kDim > kPageTokens ? kDim : kPageTokens);
  alignas(16) uint8_t codes[kPageTokens * kDim];
  uint16_t scales[kParams];
  uint16_t shifts[kParams];
};

/// A lane's part of a row.
template <class W, int kDim>
KVANT_HD inline WarpRow<W, kDim> LoadRow(const EncodeParams& p, int page, int head, int token, int lane) {
  WarpRow<W, kDim> row;
  const int64_t first = ((static_cast<int64_t>(page) * kPageTokens + token) * p.kv_heads + head) * kDim;
  KVANT_UNROLL
  for (int i = 0; i < row.kCount; ++i) row.value[i] = W::HalfToFloat(p.rows[first + lane * row.kCount + i]);
  return row;
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
KVANT_HD void UniformKeyCodes(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim, kGroups>* space) {
  using Row = WarpRow<W, kDim>;
  constexpr int kTokens = kPageTokens / kGroups;
  for (int first = 0; first < kPageTokens; first += kTokens) {
    Row least = LoadRow<W, kDim>(p, page, head, first, lane);
    Row greatest = least;
    for (int t = first + 1; t < first + kTokens; ++t) {
      const Row row = LoadRow<W, kDim>(p, page, head, t, lane);
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) {
        least.value[i] = -W::Max(-least.value[i], -row.value[i]);
        greatest.value[i] = W::Max(greatest.value[i], row.value[i]);
      }
    }
    UniformFit<W, kBits> fits[Row::kCount];
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const int at = first / kTokens * kDim + lane * Row::kCount + i;
      fits[i] = UniformFit<W, kBits>(least.value[i], greatest.value[i]);
      space->scales[at] = fits[i].scale_bits;
      space->shifts[at] = fits[i].min_bits;
    }
    for (int t = first; t < first + kTokens; ++t) {
      const Row row = LoadRow<W, kDim>(p, page, head, t, lane);
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) {
        space->codes[t * kDim + lane * Row::kCount + i] = fits[i].Code(row.value[i]);
      }
    }
  }
}

/// Values: a group is kDim / kGroups channels of a token.
template <class W, int kDim, int kBits, int kGroups>
KVANT_HD void UniformValueCodes(const EncodeParams& p, int page, int head, int lane,
                                EncodeSpace<kDim, kGroups>* space) {
  using Row = WarpRow<W, kDim>;
  const int group = lane / (kLanes / kGroups);
  for (int t = 0; t < kPageTokens; ++t) {
    const Row row = LoadRow<W, kDim>(p, page, head, t, lane);
    float low = -row.value[0], high = row.value[0];
    KVANT_UNROLL
    for (int i = 1; i < Row::kCount; ++i) {
      low = W::Max(low, -row.value[i]);
      high = W::Max(high, row.value[i]);
    }
    KVANT_UNROLL
    for (int mask = 1; mask < kLanes / kGroups; mask *= 2) {
      low = W::Max(low, W::ShuffleXor(low, mask));
      high = W::Max(high, W::ShuffleXor(high, mask));
    }
    const UniformFit<W, kBits> fit(-low, high);
    space->scales[group * kPageTokens + t] = fit.scale_bits;
    space->shifts[group * kPageTokens + t] = fit.min_bits;
    if (W::HalfToFloat(fit.scale_bits) > kMaxValueScale) *p.refused = 1;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      space->codes[t * kDim + lane * Row::kCount + i] = fit.Code(row.value[i]);
    }
  }
}

// ---- first stage: levels, as QuantizeRow of codec/parts/gain_quantizer.h after a Hadamard transform

/// Means of the channels over the page, in fp16; zeros for codecs without. Also to `store_to` [dim], if not null.
template <class W, int kDim>
KVANT_HD WarpRow<W, kDim> PageMeans(const EncodeParams& p, int page, int head, int lane, uint16_t* store_to) {
  using Row = WarpRow<W, kDim>;
  Row means;
  if (p.offsets.shifts < 0) return means;
  for (int t = 0; t < kPageTokens; ++t) {
    const Row row = LoadRow<W, kDim>(p, page, head, t, lane);
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) means.value[i] += row.value[i];
  }
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) {
    const uint16_t mean = W::FloatToHalf(means.value[i] / static_cast<float>(kPageTokens));
    if (store_to) store_to[lane * Row::kCount + i] = mean;
    means.value[i] = W::HalfToFloat(mean);
  }
  return means;
}

/// A token's row without the means, mapped, and its gain: the root of its mean square.
template <class W, int kDim>
KVANT_HD WarpRow<W, kDim> MappedRow(const EncodeParams& p, int page, int head, int token, int lane,
                                    const WarpRow<W, kDim>& means, float* gain) {
  WarpRow<W, kDim> row = LoadRow<W, kDim>(p, page, head, token, lane);
  KVANT_UNROLL
  for (int i = 0; i < row.kCount; ++i) row.value[i] -= means.value[i];
  row.Signs(lane);
  row.Butterfly(lane);
  float energy = 0.0f;
  KVANT_UNROLL
  for (int i = 0; i < row.kCount; ++i) energy += row.value[i] * row.value[i];
  *gain = W::Sqrt(SumOfLanes<W>(energy) / static_cast<float>(kDim));
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
  /// The row's scale, over all lanes, as fp16; refuses what kernels cannot take.
  template <class W>
  KVANT_HD uint16_t Scale(const EncodeParams& p, float gain) const {
    const float all_energy = SumOfLanes<W>(energy);
    const float all_dot = SumOfLanes<W>(dot);
    const float all_norm = SumOfLanes<W>(norm);
    const float scale = all_dot > 0.0f ? gain * (p.unbiased ? all_energy / all_dot : all_dot / all_norm) : 0.0f;
    if (!(scale <= (p.is_value ? kMaxValueScale : 65504.0f))) *p.refused = 1;
    return W::FloatToHalf(scale);
  }
};

template <class W, int kDim, int kBits>
KVANT_HD void LevelCodes(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim>* space) {
  using Row = WarpRow<W, kDim>;
  constexpr int kHalf = 1 << (kBits - 1);
  const Row means = PageMeans<W, kDim>(p, page, head, lane, space->shifts);
  for (int t = 0; t < kPageTokens; ++t) {
    float gain;
    const Row row = MappedRow<W, kDim>(p, page, head, t, lane, means, &gain);
    const float inverse = InverseGain<W>(gain);
    RowSums sums;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const float x = row.value[i] * inverse;
      const float magnitude = x >= 0.0f ? x : -x;
      int m = 0;
      KVANT_UNROLL
      for (int j = 0; j < kHalf - 1; ++j) m += magnitude > p.thresholds[j] ? 1 : 0;
      const int code = x >= 0.0f ? kHalf + m : kHalf - 1 - m;
      space->codes[t * kDim + lane * Row::kCount + i] = static_cast<uint8_t>(code);
      sums.Add(x, p.levels[code] * p.step);
    }
    space->scales[t] = sums.Scale<W>(p, gain);
  }
}

// ---- second stage

/// Index of the code that a lane has in a half of a register.
template <int kDim>
KVANT_HD int CodeAt(bool is_value, int unit, int step, int reg, int half, int lane) {
  const int row = lane / 4 + reg % 2 * 8;
  const int column = lane % 4 * 2 + reg / 2 * 8 + half;
  const int token = unit * kUnitTokens + (is_value ? column : row);
  const int channel = step * kStepChannels + (is_value ? row : column);
  return token * kDim + channel;
}

/// Words of one plane of codes: bits kDone.. of each.
template <class W, int kDim, int kWidth, int kDone, PairOrder kOrder>
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
      word[field.word] |= (code >> kDone & ((1u << kWidth) - 1)) << FieldShift(kOrder, kWidth, field.index, half);
    }
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) {
      reinterpret_cast<uint32_t*>(plane)[PlaneWord(kDim, kWidth, unit, lane, i)] = word[i];
    }
  }
}

/// Joined codes of three bits.
template <class W, int kDim>
KVANT_HD void PackTriples(const uint8_t* codes, bool is_value, int lane, std::byte* to) {
  constexpr int kWords = UnitWords(kDim, 3);
  for (int unit = 0; unit < kUnits; ++unit) {
    uint32_t word[kWords];
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) word[i] = 0;
    KVANT_UNROLL
    for (int step = 0; step < kDim / kStepChannels; ++step) {
      uint32_t triple = 0;
      KVANT_UNROLL
      for (int i = 0; i < 8; ++i) {
        const int at = CodeAt<kDim>(is_value, unit, step, i / 2, i % 2, lane);
        triple |= static_cast<uint32_t>(codes[at]) << (3 * i);
      }
      KVANT_UNROLL
      for (int i = 0; i < 3; ++i) {
        const WordByte at = TripleByteOf(step % kTriplesPerGroup, i);
        word[step / kTriplesPerGroup * 3 + at.word] |= (triple >> (8 * i) & 0xFF) << (8 * at.byte);
      }
    }
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) {
      reinterpret_cast<uint32_t*>(to)[PlaneWord(kDim, 3, unit, lane, i)] = word[i];
    }
  }
}

template <class W, int kDim, int kBits, PairOrder kOrder>
KVANT_HD void PackCodes(const uint8_t* codes, bool is_value, int lane, std::byte* to) {
  if constexpr (kBits == 3 && kOrder == PairOrder::kJoined) {
    PackTriples<W, kDim>(codes, is_value, lane, to);
  } else if constexpr (kBits == 3) {
    PackPlane<W, kDim, 2, 0, kOrder>(codes, is_value, lane, to);
    PackPlane<W, kDim, 1, 2, kOrder>(codes, is_value, lane, to + PlaneBytes(kDim, 2));
  } else {
    PackPlane<W, kDim, kBits, 0, kOrder>(codes, is_value, lane, to);
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
  return p.pool + (static_cast<int64_t>(p.slots[page]) * p.kv_heads + head) * p.offsets.bytes;
}

/// kRows: of parameters.
template <class W, CodeKind kKind, int kDim, int kBits, int kRows>
KVANT_HD void EncodeWarp(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim, kRows>* space) {
  constexpr bool kUniform = kKind == CodeKind::kUniform;
  std::byte* block = BlockOf(p, page, head);
  if constexpr (!kUniform) {
    LevelCodes<W, kDim, kBits>(p, page, head, lane, space);
  } else if (p.is_value) {
    UniformValueCodes<W, kDim, kBits, kRows>(p, page, head, lane, space);
  } else {
    UniformKeyCodes<W, kDim, kBits, kRows>(p, page, head, lane, space);
  }
  W::Sync();
  PackCodes<W, kDim, kBits, kUniform ? PairOrder::kSplit : PairOrder::kJoined>(space->codes, p.is_value, lane,
                                                                               block + p.offsets.codes);
  constexpr TokenOrder kOrder = TokenOrder::kUnits;
  StoreParams<kDim>(space->scales, kRows, kUniform && !p.is_value, kOrder, lane, block + p.offsets.scales);
  if (p.offsets.shifts < 0) return;
  StoreParams<kDim>(space->shifts, kRows, !p.is_value, kOrder, lane, block + p.offsets.shifts);
}

/// Exact blocks: every lane gathers the words of its operands.
template <class W, int kDim>
KVANT_HD void StoreExactWarp(const EncodeParams& p, int page, int head, int lane) {
  auto* block = reinterpret_cast<uint32_t*>(BlockOf(p, page, head));
  for (int i = 0; i < kUnits * UnitWords(kDim, 16); ++i) {
    const int unit = i / UnitWords(kDim, 16);
    const int step = i % UnitWords(kDim, 16) / 4;
    const int reg = i % 4;
    uint32_t word = 0;
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = lane / 4 + reg % 2 * 8;
      const int column = lane % 4 * 2 + reg / 2 * 8 + half;
      const int token = unit * kUnitTokens + (p.is_value ? column : row);
      const int channel = step * kStepChannels + (p.is_value ? row : column);
      const int64_t at = ((static_cast<int64_t>(page) * kPageTokens + token) * p.kv_heads + head) * kDim + channel;
      word |= static_cast<uint32_t>(p.rows[at]) << (16 * half);
    }
    block[PlaneWord(kDim, 16, unit, lane, i % UnitWords(kDim, 16))] = word;
  }
}

}  // namespace kvant::cuda
