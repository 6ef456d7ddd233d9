#include "codec/parts/trellis.h"

#include <cstring>

#include "codec/parts/strip.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/trellis_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR

void Ticks(const GainQuantizer& q, const float* strip, int16_t* ticks, float* gains) {
  float rows[kStripRows * kMaxStripDim];
  const int dim = q.num_tiles * kTileChannels;
  StoreStrip(strip, kStripRows, dim, static_cast<size_t>(dim), rows);
  for (int r = 0; r < kStripRows; ++r) TrellisTicks(q, rows + r * dim, ticks + r * dim, gains + r);
}

const TrellisKernels* Kernels() {
  static constexpr TrellisKernels kKernels = {Ticks, TrellisCodes};
  return &kKernels;
}

#else

using DF = hn::CappedTag<float, 16>;  // rows of a strip, or the channels of a tile
using DI = hn::RebindToSigned<DF>;
using DU = hn::RebindToUnsigned<DF>;
using VF = hn::Vec<DF>;
using VI = hn::Vec<DI>;
using VU = hn::Vec<DU>;
constexpr DF df;
constexpr DI di;
constexpr DU du;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(df));
constexpr int kTokens = 64;

// ------------------------------------------------------------------ ticks

HWY_INLINE VF Gain(const GainQuantizer& q, const float* HWY_RESTRICT rows) {
  VF energy = hn::Zero(df);
  int count = 0;
  for (int c = 0; c < q.num_tiles * kTileChannels; ++c) {
    if (q.bits[c / kTileChannels] == 0) continue;
    const VF value = hn::LoadU(df, rows + c * kStripRows);
    energy = hn::MulAdd(value, value, energy);
    ++count;
  }
  return count > 0 ? hn::Sqrt(hn::Div(energy, hn::Set(df, static_cast<float>(count)))) : hn::Zero(df);
}

// Rows of one channel, in ticks of its tile.
HWY_INLINE VI Tick(const GainQuantizer& q, const float* HWY_RESTRICT rows, int c, VF inverse) {
  const int bits = q.bits[c / kTileChannels];
  if (bits == 0) return hn::Zero(di);
  const auto per_step = static_cast<float>(TrellisTicksPerStep(bits));
  const VF limit = hn::Set(df, per_step * kMaxTrellisSteps);
  const VF value = hn::Mul(hn::LoadU(df, rows + c * kStripRows), inverse);
  const VF scaled = hn::Mul(value, hn::Set(df, per_step / q.books->by_bits[bits].step));
  return hn::NearestInt(hn::Min(hn::Max(scaled, hn::Neg(limit)), limit));
}

// Two channels at a time, as the halves of a word per row.
void TickRows(const GainQuantizer& q, const float* HWY_RESTRICT rows, VF inverse, int16_t* HWY_RESTRICT out) {
  const size_t stride = static_cast<size_t>(q.num_tiles) * kTileChannels;
  alignas(64) int32_t words[kStripRows];
  for (int c = 0; c < q.num_tiles * kTileChannels; c += 2) {
    const VI low = hn::And(Tick(q, rows, c, inverse), hn::Set(di, 0xFFFF));
    hn::Store(hn::Or(low, hn::ShiftLeft<16>(Tick(q, rows, c + 1, inverse))), di, words);
    for (size_t r = 0; r < static_cast<size_t>(kLanes); ++r)
      std::memcpy(out + r * stride + c, words + r, sizeof(int32_t));
  }
}

void Ticks(const GainQuantizer& q, const float* strip, int16_t* ticks, float* gains) {
  const size_t stride = static_cast<size_t>(q.num_tiles) * kTileChannels;
  for (int lane = 0; lane < kStripRows; lane += kLanes) {
    const VF gain = Gain(q, strip + lane);
    const VF inverse = hn::IfThenElseZero(hn::Gt(gain, hn::Set(df, kLeastRowGain)), hn::Div(hn::Set(df, 1.0f), gain));
    TickRows(q, strip + lane, inverse, ticks + static_cast<size_t>(lane) * stride);
    hn::StoreU(gain, df, gains + lane);
  }
}

// ------------------------------------------------------------------ paths; a lane is a channel

// The ticks of some channels of a tile, and what becomes of them.
struct Channels {
  const int16_t* ticks;  // of token 0
  size_t stride;         // between tokens
  uint8_t* windows;      // [64 tokens][16]
};

HWY_INLINE VI LoadTicks(const Channels& channels, int place) {
  const hn::Rebind<int16_t, DI> d16;
  return hn::PromoteTo(di, hn::LoadU(d16, channels.ticks + static_cast<size_t>(TrellisToken(place)) * channels.stride));
}

// The oldest symbols that the cheapest paths into each state bring along, kBits for each of the states in one
// word.
template <int kBits>
struct Survivors {
  static constexpr int kStates = kTrellisWindows >> kBits;
  alignas(64) uint32_t words[kTokens][16];
  alignas(64) int32_t cost[kStates][16];
};

// One token: costs of windows, the cheapest into each state. A cost and its oldest symbol are one number, so
// that one minimum serves both.
template <int kBits>
HWY_INLINE void Step(VI tick, const int32_t* HWY_RESTRICT levels, VI (&cost)[kTrellisWindows >> kBits],
                     uint32_t* HWY_RESTRICT word) {
  constexpr int kStates = kTrellisWindows >> kBits;
  VI from[kStates];
  for (int s = 0; s < kStates; ++s) from[s] = hn::ShiftLeft<kBits>(cost[s]);
  VU symbols = hn::Zero(du);
  for (int s = 0; s < kStates; ++s) {
    VI best = hn::Set(di, 0x7FFFFFFF);
    for (int oldest = 0; oldest < 1 << kBits; ++oldest) {
      const int window = oldest * kStates + s;
      const VI difference = hn::Sub(tick, hn::Set(di, levels[window]));
      const VI total = hn::Add(from[window >> kBits], hn::ShiftLeft<kBits>(hn::Mul(difference, difference)));
      best = hn::Min(best, hn::Add(total, hn::Set(di, oldest)));
    }
    cost[s] = hn::ShiftRight<kBits>(best);
    const VU symbol = hn::BitCast(du, hn::And(best, hn::Set(di, (1 << kBits) - 1)));
    symbols = hn::Or(symbols, hn::ShiftLeftSame(symbol, kBits * s));
  }
  hn::StoreU(symbols, du, word);
}

template <int kBits>
HWY_INLINE VI CheapestState(const VI (&cost)[kTrellisWindows >> kBits]) {
  VI state = hn::Zero(di);
  VI best = cost[0];
  for (int s = 1; s < kTrellisWindows >> kBits; ++s) {
    const auto less = hn::Lt(cost[s], best);
    best = hn::IfThenElse(less, cost[s], best);
    state = hn::IfThenElse(less, hn::Set(di, s), state);
  }
  return state;
}

// Walks back from the last state; writes windows, and returns the state after place `seam`.
template <int kBits>
HWY_INLINE VI TraceBack(const Channels& channels, const uint32_t* HWY_RESTRICT words, int first, VI last, int seam) {
  constexpr int kStates = kTrellisWindows >> kBits;
  const hn::Rebind<uint8_t, DI> d8;
  VI state = last;
  VI at_seam = last;
  for (int i = kTokens - 1; i >= 0; --i) {
    const int place = (first + i) % kTokens;
    if (place == seam) at_seam = state;
    const VU shifted = hn::BitCast(du, hn::ShiftLeft < kBits == 4 ? 2 : kBits == 2 ? 1 : 0 > (state));
    const VU amount = kBits == 3 ? hn::BitCast(du, hn::Add(state, hn::ShiftLeft<1>(state))) : shifted;
    const VU symbol = hn::And(hn::Shr(hn::LoadU(du, words + i * kLanes), amount), hn::Set(du, (1u << kBits) - 1));
    const VI window = hn::Add(hn::Mul(hn::BitCast(di, symbol), hn::Set(di, kStates)), state);
    hn::StoreU(hn::DemoteTo(d8, window), d8, channels.windows + TrellisToken(place) * kTileChannels);
    state = hn::ShiftRight<kBits>(window);
  }
  return at_seam;
}

template <int kBits>
void CircularPaths(const Channels& channels) {
  constexpr int kStates = kTrellisWindows >> kBits;
  alignas(64) uint32_t words[kTokens * kLanes];
  int32_t levels[kTrellisWindows];
  for (int w = 0; w < kTrellisWindows; ++w) levels[w] = TrellisTicksPerStep(kBits) * (TrellisLevels(kBits)[w] - 128);
  VI cost[kStates];
  const auto sweep = [&](int first) HWY_ATTR {
    for (int i = 0; i < kTokens; ++i) {
      Step<kBits>(LoadTicks(channels, (first + i) % kTokens), levels, cost, words + i * kLanes);
    }
  };
  for (int s = 0; s < kStates; ++s) cost[s] = hn::Zero(di);
  sweep(kTokens / 2);
  const VI seam = TraceBack<kBits>(channels, words, kTokens / 2, CheapestState<kBits>(cost), kTokens - 1);
  for (int s = 0; s < kStates; ++s) {
    cost[s] = hn::IfThenZeroElse(hn::Eq(seam, hn::Set(di, s)), hn::Set(di, 1 << 25));
  }
  sweep(0);
  TraceBack<kBits>(channels, words, 0, seam, kTokens - 1);
}

void PathsOfWidth(int bits, const Channels& channels) {
  switch (bits) {
    case 1:
      return CircularPaths<1>(channels);
    case 2:
      return CircularPaths<2>(channels);
    case 3:
      return CircularPaths<3>(channels);
    default:
      return CircularPaths<4>(channels);
  }
}

// ------------------------------------------------------------------ codes and scales

struct ScaleSums {
  float energy[kTokens] = {};
  float dot[kTokens] = {};
  float norm[kTokens] = {};
};

// Codes and levels of a tile, [64][16] each.
struct TileResult {
  uint8_t codes[kTileCodes];
  uint8_t levels[kTileCodes];
};

void CodeTrellisTile(int bits, const int16_t* ticks, size_t stride, TileResult* out) {
  uint8_t windows[kTileCodes];
  for (int lane = 0; lane < kTileChannels; lane += kLanes) PathsOfWidth(bits, {ticks + lane, stride, windows + lane});
  const uint8_t* levels = TrellisLevels(bits);
  for (int i = 0; i < kTileCodes; ++i) {
    out->codes[i] = static_cast<uint8_t>(windows[i] & ((1 << bits) - 1));
    out->levels[i] = levels[windows[i]];
  }
}

void CodeScalarTile(int bits, const int16_t* ticks, size_t stride, TileResult* out) {
  const int half = 1 << (bits - 1);
  for (int i = 0; i < kTileCodes; ++i) {
    const int tick = ticks[static_cast<size_t>(i / kTileChannels) * stride + static_cast<size_t>(i % kTileChannels)];
    const int code = (tick >> 6) + half;
    out->codes[i] = out->levels[i] = static_cast<uint8_t>(code < 0 ? 0 : code > 2 * half - 1 ? 2 * half - 1 : code);
  }
}

void AddSums(const Codebook& book, const float* weights, const int16_t* ticks, size_t stride, const TileResult& tile,
             ScaleSums* sums) {
  const hn::Rebind<int16_t, DI> d16;
  const hn::Rebind<uint8_t, DI> d8;
  const VF tick_size = hn::Set(df, book.step / static_cast<float>(TrellisTicksPerStep(book.bits)));
  const VF step = hn::Set(df, book.step);
  const VF center = hn::Set(df, book.center);
  for (int t = 0; t < kTokens; ++t) {
    VF energy = hn::Zero(df);
    VF dot = hn::Zero(df);
    VF norm = hn::Zero(df);
    for (int lane = 0; lane < kTileChannels; lane += kLanes) {
      const VI tick = hn::PromoteTo(di, hn::LoadU(d16, ticks + static_cast<size_t>(t) * stride + lane));
      const VI level = hn::PromoteTo(di, hn::LoadU(d8, tile.levels + t * kTileChannels + lane));
      const VF value = hn::Mul(hn::ConvertTo(df, tick), tick_size);
      const VF code_value = hn::Mul(hn::Sub(hn::ConvertTo(df, level), center), step);
      const VF weight = weights ? hn::LoadU(df, weights + lane) : hn::Set(df, 1.0f);
      energy = hn::MulAdd(hn::Mul(weight, value), value, energy);
      dot = hn::MulAdd(hn::Mul(weight, value), code_value, dot);
      norm = hn::MulAdd(hn::Mul(weight, code_value), code_value, norm);
    }
    sums->energy[t] += hn::GetLane(hn::SumOfLanes(df, energy));
    sums->dot[t] += hn::GetLane(hn::SumOfLanes(df, dot));
    sums->norm[t] += hn::GetLane(hn::SumOfLanes(df, norm));
  }
}

void CodesOf(const GainQuantizer& q, const int16_t* ticks, const float* gains, uint8_t* codes, float* scales) {
  const size_t stride = static_cast<size_t>(q.num_tiles) * kTileChannels;
  ScaleSums sums;
  TileResult result;
  for (int tile = 0; tile < q.num_tiles; ++tile) {
    const int bits = q.bits[tile];
    const int first = tile * kTileChannels;
    if (bits == 0) {
      std::memset(result.codes, 0, sizeof(result.codes));
    } else {
      (bits <= kMaxTrellisBits ? CodeTrellisTile : CodeScalarTile)(bits, ticks + first, stride, &result);
      const float* weights = q.maybe_weights ? q.maybe_weights + first : nullptr;
      AddSums(q.books->by_bits[bits], weights, ticks + first, stride, result, &sums);
    }
    for (size_t t = 0; t < kTokens; ++t)
      std::memcpy(codes + t * stride + first, result.codes + t * kTileChannels, kTileChannels);
  }
  const bool unbiased = q.rule == ScaleRule::kUnbiased;
  for (int t = 0; t < kTokens; ++t) {
    const float ratio = unbiased ? sums.energy[t] / sums.dot[t] : sums.dot[t] / sums.norm[t];
    scales[t] = sums.dot[t] > 0.0f ? gains[t] * ratio : 0.0f;
  }
}

const TrellisKernels* Kernels() {
  static constexpr TrellisKernels kKernels = {Ticks, CodesOf};
  return &kKernels;
}

#endif  // HWY_SCALAR

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const TrellisKernels& GetTrellisKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
