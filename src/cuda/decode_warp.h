// Decoding on the device, as what one warp does with one block: codes to shared memory, then row after row over the lanes.
// For whatever wants rows: attention of many queries (prefill) by kernels that read fp16, or another cache.
#pragma once

#include "cuda/code_units.h"
#include "cuda/encode_warp.h"
#include "cuda/run_order.h"

namespace kvant::cuda {

/// One per warp.
template <int kDim>
struct DecodeSpace {
  alignas(16) uint8_t codes[kPageTokens * CodeStride(kDim)];
  float levels[kDeviceLevels];
};

// ---- codes; the inverse of the second stage of encoding

template <class W, int kDim, int kWidth, int kDone, PairOrder kOrder>
KVANT_HD void UnpackPlane(const std::byte* plane, bool is_value, int lane, uint8_t* codes) {
  for (int unit = 0; unit < kUnits; ++unit) {
    PlaneWords<kDim, kWidth> words;
    words.Load(plane, unit, lane);
    KVANT_UNROLL
    for (int i = 0; i < kDim / kStepChannels * 8; ++i) {
      const int step = i / 8, reg = i / 2 % 4, half = i % 2;
      const Field field = FieldOf(kDim, kWidth, step, reg);
      const uint32_t part = words.word[field.word] >> FieldShift(kOrder, kWidth, field.index, half);
      uint8_t* to = codes + CodeAt<kDim>(is_value, unit, step, reg, half, lane);
      const uint32_t code = (part & ((1u << kWidth) - 1)) << kDone;
      *to = static_cast<uint8_t>(kDone == 0 ? code : *to | code);
    }
  }
}

template <class W, int kDim>
KVANT_HD void UnpackTriples(const std::byte* from, bool is_value, int lane, uint8_t* codes) {
  for (int unit = 0; unit < kUnits; ++unit) {
    PlaneWords<kDim, 3> words;
    words.Load(from, unit, lane);
    KVANT_UNROLL
    for (int step = 0; step < kDim / kStepChannels; ++step) {
      uint32_t triple = 0;
      KVANT_UNROLL
      for (int i = 0; i < 3; ++i) {
        const WordByte at = TripleByteOf(step % kTriplesPerGroup, i);
        triple |= (words.word[step / kTriplesPerGroup * 3 + at.word] >> (8 * at.byte) & 0xFF) << (8 * i);
      }
      KVANT_UNROLL
      for (int i = 0; i < 8; ++i) {
        codes[CodeAt<kDim>(is_value, unit, step, i / 2, i % 2, lane)] = static_cast<uint8_t>(triple >> (3 * i) & 7);
      }
    }
  }
}

/// Symbols of a trellis.
template <class W, int kDim, int kBits>
KVANT_HD void UnpackRuns(const std::byte* from, bool is_value, int lane, uint8_t* codes) {
  for (int step = 0; step < kDim / kStepChannels; ++step) {
    uint32_t word[kBits];
    KVANT_UNROLL
    for (int i = 0; i < kBits; ++i) word[i] = reinterpret_cast<const uint32_t*>(from)[RunWord(kBits, step, lane, i)];
    KVANT_UNROLL
    for (int run = 0; run < kStepRuns; ++run) {
      uint32_t symbols = 0;
      KVANT_UNROLL
      for (int i = 0; i < kBits; ++i) {
        const WordByte at = RunByteOf(kBits, run, i);
        symbols |= (word[at.word] >> (8 * at.byte) & 0xFF) << (8 * i);
      }
      const LaneRun at(is_value, step, lane, run);
      KVANT_UNROLL
      for (int i = 0; i < kRunPlaces; ++i) {
        const uint32_t symbol = symbols >> SymbolBit(kBits, i) & ((1u << kBits) - 1);
        codes[TokenOfPlace(at.first_place + i) * CodeStride(kDim) + at.channel] = static_cast<uint8_t>(symbol);
      }
    }
  }
}

template <class W, CodeKind kKind, int kDim, int kBits>
KVANT_HD void UnpackCodes(const std::byte* from, bool is_value, int lane, uint8_t* codes) {
  constexpr PairOrder kOrder = kKind == CodeKind::kUniform ? PairOrder::kSplit : PairOrder::kJoined;
  if constexpr (kKind == CodeKind::kTrellis) {
    UnpackRuns<W, kDim, kBits>(from, is_value, lane, codes);
  } else if constexpr (kBits == 3 && kOrder == PairOrder::kJoined) {
    UnpackTriples<W, kDim>(from, is_value, lane, codes);
  } else if constexpr (kBits == 3) {
    UnpackPlane<W, kDim, 2, 0, kOrder>(from, is_value, lane, codes);
    UnpackPlane<W, kDim, 1, 2, kOrder>(from + PlaneBytes(kDim, 2), is_value, lane, codes);
  } else {
    UnpackPlane<W, kDim, kBits, 0, kOrder>(from, is_value, lane, codes);
  }
}

// ---- rows

/// What a code, with the trellis the last symbols up to this one, stands for.
template <CodeKind kKind, int kDim, int kBits>
KVANT_HD inline float LevelOf(const DecodeSpace<kDim>& space, int token, int channel) {
  if constexpr (kKind == CodeKind::kTrellis) {
    int window = 0;
    KVANT_UNROLL
    for (int back = 6 / kBits - (6 % kBits == 0 ? 1 : 0); back >= 0; --back) {
      const int place = (PlaceOfToken(token) + kPageTokens - back) % kPageTokens;
      window = window << kBits | space.codes[TokenOfPlace(place) * CodeStride(kDim) + channel];
    }
    return space.levels[window & 63];
  }
  return space.levels[space.codes[token * CodeStride(kDim) + channel]];
}

template <class W, CodeKind kKind, int kDim, int kBits>
KVANT_HD WarpRow<W, kDim> LevelRow(const DecodeParams& p, const std::byte* block, const DecodeSpace<kDim>& space,
                                   const WarpRow<W, kDim>& means, int token, int lane) {
  using Row = WarpRow<W, kDim>;
  constexpr TokenOrder kOrder = kKind == CodeKind::kTrellis ? TokenOrder::kRuns : TokenOrder::kUnits;
  const auto* scales = reinterpret_cast<const uint16_t*>(block + p.offsets.scales);
  Row row;
  const float gain = W::HalfToFloat(scales[TokenParam(kOrder, token)]) * p.step;
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) {
    row.value[i] = LevelOf<kKind, kDim, kBits>(space, token, lane * Row::kCount + i) * gain;
  }
  if (p.hadamard) {
    row.Butterfly(lane);
    row.Signs(lane);
  }
  KVANT_UNROLL
  for (int i = 0; i < Row::kCount; ++i) row.value[i] += means.value[i];
  return row;
}

/// A lane's channels of a row of parameters.
template <class W, int kDim>
KVANT_HD WarpRow<W, kDim> ChannelParams(const std::byte* params, int row, int lane) {
  WarpRow<W, kDim> out;
  KVANT_UNROLL
  for (int i = 0; i < out.kCount; ++i) {
    const int at = row * kDim + ChannelParam(lane * out.kCount + i);
    out.value[i] = W::HalfToFloat(reinterpret_cast<const uint16_t*>(params)[at]);
  }
  return out;
}

template <class W, int kDim>
KVANT_HD void StoreRow(const DecodeParams& p, int page, int head, int token, int lane, const WarpRow<W, kDim>& row) {
  row.StoreHalves(p.rows + ((static_cast<int64_t>(page) * kPageTokens + token) * p.kv_heads + head) * kDim, lane);
}

/// Keys have parameters by channel, each row of them for some tokens; values by token, each row for some channels.
template <class W, int kDim>
KVANT_HD void UniformRows(const DecodeParams& p, const std::byte* block, int page, int head, int lane,
                          const DecodeSpace<kDim>& space) {
  using Row = WarpRow<W, kDim>;
  const std::byte* scales = block + p.offsets.scales;
  const std::byte* shifts = block + p.offsets.shifts;
  const int group_tokens = kPageTokens / p.param_rows;
  const int token_row = lane * p.param_rows / kLanes * kPageTokens;
  Row scale, shift;
  KVANT_UNROLL_BY(4)
  for (int t = 0; t < kPageTokens; ++t) {
    if (p.is_value) {
      const int at = token_row + TokenParamOf(TokenOrder::kUnits, kDim, p.param_rows, t);
      const float token_scale = W::HalfToFloat(reinterpret_cast<const uint16_t*>(scales)[at]);
      const float token_shift = W::HalfToFloat(reinterpret_cast<const uint16_t*>(shifts)[at]);
      KVANT_UNROLL
      for (int i = 0; i < Row::kCount; ++i) {
        scale.value[i] = token_scale;
        shift.value[i] = token_shift;
      }
    } else if (t % group_tokens == 0) {
      scale = ChannelParams<W, kDim>(scales, t / group_tokens, lane);
      shift = ChannelParams<W, kDim>(shifts, t / group_tokens, lane);
    }
    Row row;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const uint8_t code = space.codes[t * CodeStride(kDim) + lane * Row::kCount + i];
      row.value[i] = static_cast<float>(code) * scale.value[i] + shift.value[i];
    }
    StoreRow<W, kDim>(p, page, head, t, lane, row);
  }
}

KVANT_HD inline const std::byte* BlockOf(const DecodeParams& p, int page, int head) {
  return p.pool + BlockOffset(p.slots[page], p.slot_stride, head, p.offsets.bytes);
}

/// One block to rows.
template <class W, CodeKind kKind, int kDim, int kBits>
KVANT_HD void DecodeWarp(const DecodeParams& p, int page, int head, int lane, DecodeSpace<kDim>* space) {
  if (p.slots[page] < 0) return;
  const std::byte* block = BlockOf(p, page, head);
  for (int i = lane; i < kDeviceLevels; i += kLanes) space->levels[i] = p.levels[i];
  UnpackCodes<W, kKind, kDim, kBits>(block + p.offsets.codes, p.is_value, lane, space->codes);
  W::Sync();
  if constexpr (kKind == CodeKind::kUniform) {
    UniformRows<W, kDim>(p, block, page, head, lane, *space);
  } else {
    WarpRow<W, kDim> means;
    if (p.offsets.shifts >= 0) means = ChannelParams<W, kDim>(block + p.offsets.shifts, 0, lane);
    KVANT_UNROLL_BY(4)
    for (int t = 0; t < kPageTokens; ++t) {
      StoreRow<W, kDim>(p, page, head, t, lane, LevelRow<W, kKind, kDim, kBits>(p, block, *space, means, t, lane));
    }
  }
}

/// Exact blocks: every lane scatters the words that are its operands.
template <class W, int kDim>
KVANT_HD void LoadExactWarp(const DecodeParams& p, int page, int head, int lane) {
  if (p.slots[page] < 0) return;
  const std::byte* block = BlockOf(p, page, head);
  for (int unit = 0; unit < kUnits; ++unit) {
    PlaneWords<kDim, 16> words;
    words.Load(block, unit, lane);
    KVANT_UNROLL
    for (int i = 0; i < UnitWords(kDim, 16) * 2; ++i) {
      const TokenChannel at = PlaceOf(p.is_value, unit, i / 8, i / 2 % 4, i % 2, lane);
      const int64_t row = (static_cast<int64_t>(page) * kPageTokens + at.token) * p.kv_heads + head;
      p.rows[row * kDim + at.channel] = static_cast<uint16_t>(words.word[i / 2] >> (16 * (i % 2)));
    }
  }
}

}  // namespace kvant::cuda
