// Rows into exact pages, as what one warp does with the row of one head: pairs of channels are loaded side by side and go to the
// places where lanes will read them as operands (fragment_order.h), pairs of keys as words, values as halves.
#pragma once

#include "cuda/attend_params.h"
#include "cuda/fragment_order.h"

namespace kvant::cuda {

/// Two neighbouring channels as halves.
template <class W>
KVANT_HD inline uint32_t LoadPair(const WriteSide& side, int row, int pair) {
  struct alignas(8) Floats {
    float low, high;
  };
  const std::byte* from = side.rows + row * side.row_stride;
  if (!side.is_float) return W::LoadConstant(reinterpret_cast<const uint32_t*>(from) + pair);
  const Floats floats = W::LoadConstant(reinterpret_cast<const Floats*>(from) + pair);
  return W::Pack(floats.low, floats.high);
}

KVANT_HD inline bool IsFinitePair(uint32_t halves) {
  constexpr uint32_t kLow = 0x7C00u, kHigh = 0x7C000000u;  // exponents
  return (halves & kLow) != kLow && (halves & kHigh) != kHigh;
}

/// Index of the half of a token and channel in an exact block.
KVANT_HD constexpr int ExactHalf(int dim, bool is_value, int token, int channel) {
  const Fragment at = FragmentOf(is_value, token, channel);
  return 2 * PlaneWord(dim, 16, at.unit, at.lane, FieldOf(dim, 16, at.step, at.reg).word) + at.half;
}

template <int kDim>
KVANT_HD inline void StorePair(uint32_t halves, bool is_value, int token, int channel, uint16_t* block) {
  const int at = ExactHalf(kDim, is_value, token, channel);
  if (!is_value) {
    *reinterpret_cast<uint32_t*>(block + at) = halves;
    return;
  }
  block[at] = static_cast<uint16_t>(halves);
  block[ExactHalf(kDim, true, token, channel + 1)] = static_cast<uint16_t>(halves >> 16);
}

/// Row `row` of one head. What it reads does not wait for its target.
template <class W, int kDim>
KVANT_HD void WriteRowWarp(const WriteParams& p, const WriteSide& side, int row, int head, int lane) {
  constexpr int kPairs = kDim / 2 / kLanes;
  uint32_t pairs[kPairs];
  KVANT_UNROLL
  for (int i = 0; i < kPairs; ++i) pairs[i] = LoadPair<W>(side, row, head * (kDim / 2) + i * kLanes + lane);
  const int32_t target = p.targets[row];
  if (target < 0) return;
  auto* block = reinterpret_cast<uint16_t*>(
      side.pool + BlockOffset(target / kPageTokens, side.slot_stride, head, PlaneBytes(kDim, 16)));
  bool finite = true;
  KVANT_UNROLL
  for (int i = 0; i < kPairs; ++i) {
    finite = finite && IsFinitePair(pairs[i]);
    StorePair<kDim>(pairs[i], side.is_value, target % kPageTokens, 2 * (i * kLanes + lane), block);
  }
  if (!finite) *p.refused = 1;
}

}  // namespace kvant::cuda
