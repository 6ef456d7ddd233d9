#include "codec/parts/turned_keys.h"

#include <algorithm>

#include "base/check.h"
#include "page/block_layout.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/turned_keys_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/dot_bytes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

using DF = hn::CappedTag<float, 16>;
using D32 = hn::RebindToSigned<DF>;
using VF = hn::Vec<DF>;
using V32 = hn::Vec<D32>;
constexpr DF df;
constexpr D32 d32;
constexpr int kLanes = static_cast<int>(hn::MaxLanes(d32));

// ------------------------------------------------------------------ queries

HWY_INLINE void StoreFixed(VF v, VF scale, int16_t* HWY_RESTRICT out) {
  const hn::Rebind<int16_t, DF> dh;
  hn::StoreU(hn::DemoteTo(dh, hn::NearestInt(hn::Mul(v, scale))), dh, out);
}

void TurnQueries(const Rope& rope, int32_t position, const float* split, const float* norm, int heads, int16_t* queries,
                 float* unit) {
  const int half = rope.dim() / 2;
  KVANT_DCHECK(half <= kMaxPairs);
  alignas(64) float cos[kMaxPairs + 16], sin[kMaxPairs + 16];
  rope.Angles(position, cos, sin);
  for (int j = rope.pairs(); j < half; ++j) {
    cos[j] = 1.0f;
    sin[j] = 0.0f;
  }
  for (int h = 0; h < heads; ++h, split += 2 * half, queries += 2 * half) {
    const float scale = norm[h] > 0.0f ? kMaxQueryPair / norm[h] : 0.0f;
    unit[h] = norm[h] / kMaxQueryPair;
    const VF scales = hn::Set(df, scale);
    int j = 0;
    for (; j + kLanes <= half; j += kLanes) {
      const VF a = hn::LoadU(df, split + j), b = hn::LoadU(df, split + half + j);
      const VF c = hn::LoadU(df, cos + j), s = hn::LoadU(df, sin + j);
      StoreFixed(hn::MulAdd(b, s, hn::Mul(a, c)), scales, queries + j);
      StoreFixed(hn::NegMulAdd(a, s, hn::Mul(b, c)), scales, queries + half + j);
    }
    const hn::CappedTag<float, 1> d1;
    for (; j < half; ++j) {
      const float a = split[j], b = split[half + j];
      queries[j] = static_cast<int16_t>(hn::GetLane(hn::NearestInt(hn::Set(d1, (a * cos[j] + b * sin[j]) * scale))));
      queries[half + j] =
          static_cast<int16_t>(hn::GetLane(hn::NearestInt(hn::Set(d1, (b * cos[j] - a * sin[j]) * scale))));
    }
  }
}

// ------------------------------------------------------------------ products

#if HWY_TARGET == HWY_SCALAR
void Dot(const int16_t* keys, int quads, const int16_t* queries, int dim, int heads, const float* unit, float* scores) {
  for (int h = 0; h < heads; ++h, queries += dim, scores += kTokensPerPage) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      int32_t sum = 0;
      for (int c = 0; c < 4 * quads; ++c) sum += keys[PageAngleIndex(c, t)] * queries[c % 2 * (dim / 2) + c / 2];
      scores[t] += static_cast<float>(sum) * unit[h];
    }
  }
}
#else
using D16 = hn::Repartition<int16_t, D32>;
using V16 = hn::Vec<D16>;
constexpr D16 d16;

// Tokens `token` .. of kVectors vectors, for kHeads heads.
template <int kHeads, int kVectors>
HWY_INLINE void DotPass(const int16_t* HWY_RESTRICT keys, int quads, const int16_t* HWY_RESTRICT queries, int dim,
                        const float* HWY_RESTRICT unit, float* HWY_RESTRICT scores) {
  V32 sum[kHeads][kVectors];
  for (auto& head : sum) {
    for (V32& v : head) v = hn::Zero(d32);
  }
  for (int quad = 0; quad < quads; ++quad, keys += kQuadValues) {
    for (int member = 0; member < 2; ++member) {
      V16 k[kVectors];
      for (int v = 0; v < kVectors; ++v) k[v] = hn::LoadU(d16, keys + member * (kQuadValues / 2) + v * 2 * kLanes);
      for (int h = 0; h < kHeads; ++h) {
        const V16 q = BroadcastPair(d16, queries + h * dim + member * (dim / 2) + 2 * quad);
        for (int v = 0; v < kVectors; ++v) sum[h][v] = DotPairs(sum[h][v], k[v], q);
      }
    }
  }
  for (int h = 0; h < kHeads; ++h) {
    for (int v = 0; v < kVectors; ++v) {
      float* out = scores + h * kTokensPerPage + v * kLanes;
      hn::StoreU(hn::MulAdd(hn::ConvertTo(df, sum[h][v]), hn::Set(df, unit[h]), hn::LoadU(df, out)), df, out);
    }
  }
}

template <int kHeads>
HWY_NOINLINE void DotHeads(const int16_t* keys, int quads, const int16_t* queries, int dim, const float* unit,
                           float* scores) {
  constexpr int kFit = kMaxAccumulators / kHeads;
  constexpr int kAll = kTokensPerPage / kLanes;
  constexpr int kVectors = kFit < kAll ? kFit : kAll;
  for (int v = 0; v < kAll; v += kVectors) {
    DotPass<kHeads, kVectors>(keys + v * 2 * kLanes, quads, queries, dim, unit, scores + v * kLanes);
  }
}

void Dot(const int16_t* keys, int quads, const int16_t* queries, int dim, int heads, const float* unit, float* scores) {
  const auto advance = [&](int count) {
    queries += count * dim;
    unit += count;
    scores += count * kTokensPerPage;
    heads -= count;
  };
  for (; heads >= 4; advance(4)) DotHeads<4>(keys, quads, queries, dim, unit, scores);
  for (; heads >= 2; advance(2)) DotHeads<2>(keys, quads, queries, dim, unit, scores);
  if (heads == 1) DotHeads<1>(keys, quads, queries, dim, unit, scores);
}
#endif  // HWY_SCALAR

const TurnedKeyKernels* Kernels() {
  static constexpr TurnedKeyKernels kKernels = {TurnQueries, Dot};
  return &kKernels;
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Kernels);

const TurnedKeyKernels& GetTurnedKeyKernels() { return *HWY_DYNAMIC_DISPATCH(Kernels)(); }

}  // namespace kvant
#endif  // HWY_ONCE
