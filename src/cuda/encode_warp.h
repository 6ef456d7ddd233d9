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

/// What the first stage leaves for the second; one per warp.
template <int kDim>
struct EncodeSpace {
  static constexpr int kParams = 2 * (kDim > kPageTokens ? kDim : kPageTokens);
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

/// Keys: a group is a channel.
template <class W, int kDim, int kBits>
KVANT_HD void UniformKeyCodes(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim>* space) {
  constexpr int kCount = WarpRow<W, kDim>::kCount;
  float least[kCount], greatest[kCount];
  for (int t = 0; t < kPageTokens; ++t) {
    const WarpRow<W, kDim> row = LoadRow<W, kDim>(p, page, head, t, lane);
    KVANT_UNROLL
    for (int i = 0; i < kCount; ++i) {
      least[i] = t == 0 ? row.value[i] : -W::Max(-least[i], -row.value[i]);
      greatest[i] = t == 0 ? row.value[i] : W::Max(greatest[i], row.value[i]);
    }
  }
  KVANT_UNROLL
  for (int i = 0; i < kCount; ++i) {
    const UniformFit<W, kBits> fit(least[i], greatest[i]);
    const int channel = lane * kCount + i;
    space->scales[channel] = fit.scale_bits;
    space->shifts[channel] = fit.min_bits;
    for (int t = 0; t < kPageTokens; ++t) {
      const int64_t at = ((static_cast<int64_t>(page) * kPageTokens + t) * p.kv_heads + head) * kDim + channel;
      space->codes[t * kDim + channel] = fit.Code(W::HalfToFloat(p.rows[at]));
    }
  }
}

/// Values: a group is a token's 128 channels, or all of a smaller head.
template <class W, int kDim, int kBits>
KVANT_HD void UniformValueCodes(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim>* space) {
  constexpr int kGroups = kDim > 128 ? kDim / 128 : 1;
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

template <class W, int kDim>
KVANT_HD void PageMeans(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim>* space,
                        WarpRow<W, kDim>* means) {
  using Row = WarpRow<W, kDim>;
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) means->value[i] = 0.0f;
  for (int t = 0; t < kPageTokens; ++t) {
    const Row row = LoadRow<W, kDim>(p, page, head, t, lane);
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) means->value[i] += row.value[i];
  }
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) {
    const uint16_t mean = W::FloatToHalf(means->value[i] / static_cast<float>(kPageTokens));
    space->shifts[lane * Row::kCount + i] = mean;
    means->value[i] = W::HalfToFloat(mean);
  }
}

template <class W, int kDim, int kBits>
KVANT_HD void LevelCodes(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim>* space) {
  using Row = WarpRow<W, kDim>;
  constexpr int kHalf = 1 << (kBits - 1);
  constexpr float kSmallestGain = 1e-30f;
  Row means;
  const bool centred = p.offsets.shifts >= 0;
  if (centred) PageMeans<W, kDim>(p, page, head, lane, space, &means);
  for (int t = 0; t < kPageTokens; ++t) {
    Row row = LoadRow<W, kDim>(p, page, head, t, lane);
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) row.value[i] -= means.value[i];
    row.Signs(lane);
    row.Butterfly(lane);
    float energy = 0.0f;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) energy += row.value[i] * row.value[i];
    const float gain = W::Sqrt(SumOfLanes<W>(energy) / static_cast<float>(kDim));
    const float inverse = gain > kSmallestGain ? 1.0f / gain : 0.0f;
    float own = 0.0f, dot = 0.0f, norm = 0.0f;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const float x = row.value[i] * inverse;
      const float magnitude = x >= 0.0f ? x : -x;
      int m = 0;
      KVANT_UNROLL
      for (int j = 0; j < kHalf - 1; ++j) m += magnitude > p.thresholds[j] ? 1 : 0;
      const int code = x >= 0.0f ? kHalf + m : kHalf - 1 - m;
      const float level = p.levels[code] * p.step;
      space->codes[t * kDim + lane * Row::kCount + i] = static_cast<uint8_t>(code);
      own += x * x;
      dot += x * level;
      norm += level * level;
    }
    own = SumOfLanes<W>(own);
    dot = SumOfLanes<W>(dot);
    norm = SumOfLanes<W>(norm);
    const float scale = dot > 0.0f ? gain * (p.unbiased ? own / dot : dot / norm) : 0.0f;
    space->scales[t] = W::FloatToHalf(scale);
    if (!(scale <= (p.is_value ? kMaxValueScale : 65504.0f))) *p.refused = 1;
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
KVANT_HD void PackPlane(const EncodeSpace<kDim>& space, bool is_value, int lane, std::byte* plane) {
  constexpr int kWords = UnitWords(kDim, kWidth);
  for (int unit = 0; unit < kUnits; ++unit) {
    uint32_t word[kWords];
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) word[i] = 0;
    KVANT_UNROLL
    for (int i = 0; i < kDim / kStepChannels * 8; ++i) {
      const int step = i / 8, reg = i / 2 % 4, half = i % 2;
      const Field field = FieldOf(kDim, kWidth, step, reg);
      const uint32_t code = space.codes[CodeAt<kDim>(is_value, unit, step, reg, half, lane)];
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
KVANT_HD void PackTriples(const EncodeSpace<kDim>& space, bool is_value, int lane, std::byte* codes) {
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
        triple |= static_cast<uint32_t>(space.codes[at]) << (3 * i);
      }
      KVANT_UNROLL
      for (int i = 0; i < 3; ++i) {
        const WordByte to = TripleByteOf(step % kTriplesPerGroup, i);
        word[step / kTriplesPerGroup * 3 + to.word] |= (triple >> (8 * i) & 0xFF) << (8 * to.byte);
      }
    }
    KVANT_UNROLL
    for (int i = 0; i < kWords; ++i) {
      reinterpret_cast<uint32_t*>(codes)[PlaneWord(kDim, 3, unit, lane, i)] = word[i];
    }
  }
}

template <class W, int kDim, int kBits, PairOrder kOrder>
KVANT_HD void PackCodes(const EncodeSpace<kDim>& space, bool is_value, int lane, std::byte* codes) {
  if constexpr (kBits == 3 && kOrder == PairOrder::kJoined) {
    PackTriples<W, kDim>(space, is_value, lane, codes);
  } else if constexpr (kBits == 3) {
    PackPlane<W, kDim, 2, 0, kOrder>(space, is_value, lane, codes);
    PackPlane<W, kDim, 1, 2, kOrder>(space, is_value, lane, codes + PlaneBytes(kDim, 2));
  } else {
    PackPlane<W, kDim, kBits, 0, kOrder>(space, is_value, lane, codes);
  }
}

template <int kDim>
KVANT_HD inline void StoreChannelParams(const uint16_t* params, int lane, std::byte* to) {
  for (int c = lane; c < kDim; c += kLanes) reinterpret_cast<uint16_t*>(to)[ChannelParam(c)] = params[c];
}
KVANT_HD inline void StoreTokenParams(const uint16_t* params, int rows, int lane, std::byte* to) {
  for (int i = lane; i < rows * kPageTokens; i += kLanes) {
    reinterpret_cast<uint16_t*>(to)[i / kPageTokens * kPageTokens + TokenParam(TokenOrder::kUnits, i % kPageTokens)] =
        params[i];
  }
}

// ---- one block

template <class W, CodeKind kKind, int kDim, int kBits>
KVANT_HD void EncodeWarp(const EncodeParams& p, int page, int head, int lane, EncodeSpace<kDim>* space) {
  std::byte* block = p.pool + (static_cast<int64_t>(p.slots[page]) * p.kv_heads + head) * p.offsets.bytes;
  if constexpr (kKind == CodeKind::kUniform) {
    if (p.is_value) {
      UniformValueCodes<W, kDim, kBits>(p, page, head, lane, space);
    } else {
      UniformKeyCodes<W, kDim, kBits>(p, page, head, lane, space);
    }
  } else {
    LevelCodes<W, kDim, kBits>(p, page, head, lane, space);
  }
  W::Sync();
  PackCodes<W, kDim, kBits, kKind == CodeKind::kLevels ? PairOrder::kJoined : PairOrder::kSplit>(
      *space, p.is_value, lane, block + p.offsets.codes);
  if (kKind == CodeKind::kUniform && !p.is_value) {
    StoreChannelParams<kDim>(space->scales, lane, block + p.offsets.scales);
  } else {
    StoreTokenParams(space->scales, kKind == CodeKind::kUniform && kDim > 128 ? kDim / 128 : 1, lane,
                     block + p.offsets.scales);
  }
  if (p.offsets.shifts < 0) return;
  if (!p.is_value) {
    StoreChannelParams<kDim>(space->shifts, lane, block + p.offsets.shifts);
  } else {
    StoreTokenParams(space->shifts, kDim > 128 ? kDim / 128 : 1, lane, block + p.offsets.shifts);
  }
}

/// Exact blocks: every lane gathers the words of its operands.
template <class W, int kDim>
KVANT_HD void StoreExactWarp(const EncodeParams& p, int page, int head, int lane) {
  auto* block =
      reinterpret_cast<uint32_t*>(p.pool + (static_cast<int64_t>(p.slots[page]) * p.kv_heads + head) * p.offsets.bytes);
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
