// Encoding trellis codes on the device, as what the threads of one block do with one block of a page, a thread per channel:
// warps turn rows into ticks, every thread finds the best path of its channel, warps fit the scales and pack runs. The paths
// are those of codec/parts/trellis.h: integer arithmetic, the same ties.
#pragma once

#include "codec/device_format.h"
#include "cuda/encode_warp.h"
#include "cuda/run_order.h"

namespace kvant::cuda {

// The format's, from codec/parts/trellis.h; a test compares them.
constexpr int kWindows = 64;  ///< windows
constexpr float kTicksPerStep = 4.0f;
constexpr float kMostTicks = 160.0f * kTicksPerStep;

/// For EncodeParams.
inline TrellisCosts CostsOf(const DeviceFormat& format) {
  TrellisCosts costs;
  for (int window = 0; window < kWindows; ++window) {
    const int level = static_cast<int>(kTicksPerStep * format.levels[window]);
    costs.slope[window] = -2 * level * (1 << format.bits);
    costs.base[window] = level * level * (1 << format.bits) + window / (kWindows >> format.bits);
  }
  return costs;
}

/// Shared memory of a block.
template <int kDim>
struct TrellisSpace {
  static constexpr int kStride = kDim + 2;  ///< of ticks
  alignas(16) uint8_t windows[kPageTokens * CodeStride(kDim)];
  uint32_t survivors[kPageTokens * kDim];
  int16_t ticks[kPageTokens * kStride];
  float gains[kPageTokens];
  float levels[kWindows];
  uint16_t scales[kPageTokens];
  uint16_t shifts[kDim];
};

/// The search of one thread.
template <int kDim, int kBits>
struct TrellisSearch {
  static constexpr int kStates = kWindows >> kBits;
  const TrellisCosts& costs;
  const int16_t* ticks;  ///< of the channel
  uint32_t* survivors;   ///< likewise
  int cost[kStates];

  /// Places first, first + 1, ..., circular. Of each state the oldest symbol of the cheapest window into it survives.
  KVANT_HD void Sweep(int first) {
    for (int i = 0; i < kPageTokens; ++i) {
      const int tick = ticks[TokenOfPlace((first + i) % kPageTokens) * TrellisSpace<kDim>::kStride];
      int from[kStates];
      KVANT_UNROLL
      for (int s = 0; s < kStates; ++s) from[s] = cost[s] * (1 << kBits);
      uint32_t symbols = 0;
      KVANT_UNROLL
      for (int s = 0; s < kStates; ++s) {
        int best = 0x7FFFFFFF;
        KVANT_UNROLL
        for (int window = s; window < kWindows; window += kStates) {
          const int total = tick * costs.slope[window] + from[window >> kBits] + costs.base[window];
          best = total < best ? total : best;
        }
        cost[s] = best >> kBits;
        symbols |= (static_cast<uint32_t>(best) & ((1u << kBits) - 1)) << (kBits * s);
      }
      survivors[i * kDim] = symbols;
    }
  }
  KVANT_HD int Cheapest() const {
    int state = 0;
    int least = cost[0];
    KVANT_UNROLL
    for (int s = 1; s < kStates; ++s) {
      if (cost[s] < least) {
        least = cost[s];
        state = s;
      }
    }
    return state;
  }
  /// Walks back from the last state; the state after the last place of the sequence. windows: of the channel, or null.
  KVANT_HD int TraceBack(int first, int state, uint8_t* maybe_windows) const {
    int seam = state;
    for (int i = kPageTokens - 1; i >= 0; --i) {
      const int place = (first + i) % kPageTokens;
      if (place == kPageTokens - 1) seam = state;
      const int symbol = static_cast<int>(survivors[i * kDim] >> (kBits * state)) & ((1 << kBits) - 1);
      const int window = symbol * kStates + state;
      if (maybe_windows) maybe_windows[TokenOfPlace(place) * CodeStride(kDim)] = static_cast<uint8_t>(window);
      state = window >> kBits;
    }
    return seam;
  }
  /// A free path through the sequence turned by half gives the state at the seam; the second keeps to it.
  KVANT_HD void CircularPath(uint8_t* windows) {
    KVANT_UNROLL
    for (int s = 0; s < kStates; ++s) cost[s] = 0;
    Sweep(kPageTokens / 2);
    const int seam = TraceBack(kPageTokens / 2, Cheapest(), nullptr);
    KVANT_UNROLL
    for (int s = 0; s < kStates; ++s) cost[s] = s == seam ? 0 : 1 << 25;
    Sweep(0);
    TraceBack(0, seam, windows);
  }
};

/// The words of a lane in one step.
template <int kDim, int kBits>
KVANT_HD void PackRuns(const uint8_t* windows, bool is_value, int step, int lane, std::byte* codes) {
  uint32_t word[kBits] = {};
  KVANT_UNROLL
  for (int run = 0; run < kStepRuns; ++run) {
    const LaneRun at(is_value, step, lane, run);
    uint32_t symbols = 0;
    for (int i = 0; i < kRunPlaces; ++i) {
      symbols = symbols << kBits |
                (windows[TokenOfPlace(at.first_place + i) * CodeStride(kDim) + at.channel] & ((1u << kBits) - 1));
    }
    KVANT_UNROLL
    for (int i = 0; i < kBits; ++i) {
      const WordByte to = RunByteOf(kBits, run, i);
      word[to.word] |= (symbols >> (8 * i) & 0xFF) << (8 * to.byte);
    }
  }
  KVANT_UNROLL
  for (int i = 0; i < kBits; ++i) reinterpret_cast<uint32_t*>(codes)[RunWord(kBits, step, lane, i)] = word[i];
}

/// One thread of kDim; a warp takes every kDim / 32-th token and step.
template <class W, int kDim, int kBits>
KVANT_HD void EncodeTrellisThread(const EncodeParams& p, int page, int head, int thread, TrellisSpace<kDim>* space) {
  if (p.slots[page] < 0) return;
  using Row = EncodeRow<W, kDim>;
  constexpr int kWarps = kDim / kLanes;
  constexpr int kStride = TrellisSpace<kDim>::kStride;
  const int warp = thread / kLanes;
  const int lane = thread % kLanes;
  const RowPlace<kDim> at = {page, head, lane};
  const int first = warp * at.kStep + at.row();
  for (int i = thread; i < kWindows; i += kDim) space->levels[i] = p.levels[i] * p.step;
  const Row means = PageMeans<W, kDim>(p, at, warp == 0 ? space->shifts : nullptr);
  for (int t = first; t < kPageTokens; t += kWarps * at.kStep) {
    float gain;
    const Row row = MappedRow<W, kDim>(p, at, t, means, &gain);
    const float inverse = InverseGain<W>(gain);
    if (at.is_first()) space->gains[t] = gain;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const float tick = row.value[i] * inverse * (kTicksPerStep / p.step);
      space->ticks[t * kStride + at.channel() + i] =
          static_cast<int16_t>(W::Round(-W::Max(-W::Max(tick, -kMostTicks), -kMostTicks)));
    }
  }
  W::BlockSync();
  TrellisSearch<kDim, kBits> search = {p.costs, space->ticks + thread, space->survivors + thread, {}};
  search.CircularPath(space->windows + thread);
  W::BlockSync();
  for (int t = first; t < kPageTokens; t += kWarps * at.kStep) {
    RowSums sums;
    KVANT_UNROLL
    for (int i = 0; i < Row::kCount; ++i) {
      const int channel = at.channel() + i;
      sums.Add(static_cast<float>(space->ticks[t * kStride + channel]) * (p.step / kTicksPerStep),
               space->levels[space->windows[t * CodeStride(kDim) + channel]]);
    }
    const uint16_t scale = sums.Scale<W, kEncodeLanes<kDim>>(p, space->gains[t]);
    if (at.is_first()) space->scales[t] = scale;
  }
  std::byte* block = BlockOf(p, page, head);
  for (int step = warp; step < kDim / kStepChannels; step += kWarps) {
    PackRuns<kDim, kBits>(space->windows, p.is_value, step, lane, block + p.offsets.codes);
  }
  W::BlockSync();
  if (warp != 0) return;
  StoreParams<kDim>(space->scales, 1, false, TokenOrder::kRuns, lane, block + p.offsets.scales);
  if (p.offsets.shifts >= 0) {
    StoreParams<kDim>(space->shifts, 1, true, TokenOrder::kRuns, lane, block + p.offsets.shifts);
  }
}

}  // namespace kvant::cuda
