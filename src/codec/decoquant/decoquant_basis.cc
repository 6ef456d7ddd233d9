// The small factor: fitted to rows, stored, checked, viewed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <utility>
#include <vector>

#include "base/all_finite.h"
#include "codec/decoquant/decoquant.h"
#include "codec/parts/covariance.h"
#include "codec/parts/eigen_basis.h"
#include "codec/parts/strip.h"

namespace kvant::decoquant {
namespace {

// Directions weaker than this share of the strongest are treated as if they had it, so that tokens unlike
// those of the fit do not blow up in them.
constexpr float kVarianceFloor = 1e-6f;
// Of a stored gain, relative to the largest.
constexpr float kSmallestGain = 1e-4f;

// How far latent variances are drawn to their mean: by the share that the coordinates are of the rows they
// were fitted to. A thousand correlated tokens make weak directions look weaker than they are for the tokens
// to come; measured on a model at 3 bits, divergence 0.0045 without, 0.0041 with a share of 0.05, 0.0037 with
// 0.2.
float Shrinkage(size_t dim, size_t rows) { return static_cast<float>(dim) / static_cast<float>(dim + rows); }

// Second moments [fold, fold] of the rows, or of their groups of `fold` channels. All rows count alike: weighted by their
// attention the divergence is the same at 3 and 4 bits and a fifth larger at 2.
Result<std::vector<float>> Covariance(const State& s, const FitData& data) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::vector<float> rows(data.rows, data.rows + data.tokens * dim);
  if (s.centred) CentrePages(data.tokens, s.shape.dim, rows.data());
  const size_t count = rows.size() / static_cast<size_t>(s.fold());  // groups follow one another: a fold is a reshape
  return SecondMoments("decoquant", rows.data(), count, s.fold());
}

// Each row of m [dim, dim] -> its coordinates in the basis.
void ReflectRows(const ReflectorView& q, float* m) {
  const auto dim = static_cast<size_t>(q.dim);
  Strip strip;
  for (size_t r = 0; r < dim; r += kStripRows) {
    LoadStrip(m + r * dim, dim, kStripRows, q.dim, strip.values);
    GetReflectorKernels().forward(q, 1, strip.values);
    StoreStrip(strip.values, kStripRows, q.dim, dim, m + r * dim);
  }
}

void Transpose(size_t dim, float* m) {
  for (size_t i = 0; i < dim; ++i) {
    for (size_t j = 0; j < i; ++j) std::swap(m[i * dim + j], m[j * dim + i]);
  }
}

// Q^T m Q of a symmetric matrix.
void Rotate(const ReflectorView& q, float* m) {
  ReflectRows(q, m);
  Transpose(static_cast<size_t>(q.dim), m);
  ReflectRows(q, m);
}

// Row and column i times factors[i].
void ScaleBothSides(std::span<const float> factors, float* m) {
  for (size_t i = 0; i < factors.size(); ++i) {
    for (size_t j = 0; j < factors.size(); ++j) m[i * factors.size() + j] *= factors[i] * factors[j];
  }
}

// Variances to expect along the stored basis, whose columns are not exactly the eigenvectors: the diagonal of
// Q^T C Q, shrunk.
std::vector<float> LatentVariances(const ReflectorView& q, std::vector<float> c, float shrinkage) {
  const auto dim = static_cast<size_t>(q.dim);
  Rotate(q, c.data());
  std::vector<float> variances(dim);
  float mean = 0.0f;
  for (size_t j = 0; j < dim; ++j) {
    variances[j] = std::max(c[j * dim + j], 0.0f);
    mean += variances[j] / static_cast<float>(dim);
  }
  for (float& v : variances) v += shrinkage * (mean - v);
  return variances;
}

// Standard deviation for klt (latents get unit variance), its root for the balanced gauges; relative to the
// largest.
void StoreGains(const State& s, std::span<const float> variances, F16* gains) {
  const float max = *std::max_element(variances.begin(), variances.end());
  for (size_t j = 0; j < variances.size(); ++j) {
    const float share = max > 0.0f ? std::max(variances[j] / max, kVarianceFloor) : 1.0f;
    gains[j] = ToF16(s.gauge == Gauge::kKlt ? std::sqrt(share) : std::sqrt(std::sqrt(share)));
  }
}

// `costs`: what an error in a latent channel costs, times its variance.
void StoreWidths(const State& s, std::span<const float> costs, uint8_t* bits) {
  if (s.gauge != Gauge::kKlt) {
    std::copy_n(s.default_bits, s.num_tiles, bits);
    return;
  }
  std::vector<double> tiles(static_cast<size_t>(s.num_tiles), 0.0);
  for (size_t j = 0; j < costs.size(); ++j) tiles[j / kTileChannels] += costs[j];
  AllocateBits(tiles, *s.books, s.total_bits, bits);
}

// ---- the metric

// Share of a metric's mean that is added to all directions, so that none is free: the queries to come are not
// exactly those that were seen. 0.001 and 0.1 do as well.
constexpr double kMetricRidge = 0.01;

std::vector<double> Identity(int dim) {
  const auto n = static_cast<size_t>(dim);
  std::vector<double> m(n * n, 0.0);
  for (size_t i = 0; i < n; ++i) m[i * n + i] = 1.0;
  return m;
}

std::vector<float> WithRidge(int dim, const double* metric) {
  const auto n = static_cast<size_t>(dim);
  double mean = 0.0;
  for (size_t i = 0; i < n; ++i) mean += metric[i * n + i] / dim;
  std::vector<float> m(n * n);
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j < n; ++j) {
      m[i * n + j] = static_cast<float>(mean > 0 ? metric[i * n + j] / mean + (i == j ? kMetricRidge : 0.0) : i == j);
    }
  }
  return m;
}

// Stores the strongest directions of the metric and a gain for each coordinate that they imply, and brings metric and
// covariance into those coordinates, where errors cost about the same in all directions.
void ApplyMetric(const SegmentMap& map, std::byte* reflectors, F16* gains, std::vector<float>* metric,
                 std::vector<float>* covariance) {
  const int dim = map.metric.dim;
  const auto n = static_cast<size_t>(dim);
  std::vector<float> vectors(n * n);
  std::vector<float> factors(n);
  SymmetricEigen(dim, metric->data(), vectors.data(), factors.data());
  QuantizeReflectors(dim, map.metric.count, vectors.data(), reflectors);
  Rotate(map.metric, metric->data());
  Rotate(map.metric, covariance->data());
  for (size_t i = 0; i < n; ++i) factors[i] = std::sqrt(std::max((*metric)[i * n + i], 0.0f));
  const float max = *std::max_element(factors.begin(), factors.end());
  for (size_t i = 0; i < n; ++i) {
    gains[i] = ToF16(factors[i] / max);  // at least sqrt(ridge / dim)
    factors[i] = ToFloat(gains[i]);
  }
  ScaleBothSides(factors, covariance->data());
  for (float& factor : factors) factor = 1.0f / factor;
  ScaleBothSides(factors, metric->data());
}

Status CheckGains(const F16* gains, int count) {
  for (int j = 0; j < count; ++j) {
    const float gain = ToFloat(gains[j]);
    if (gain >= kSmallestGain && gain <= 1.0f) continue;
    return Status::Corruption(StrFormat("decoquant: gain of channel %d is out of range", j));
  }
  return Status::Ok();
}

}  // namespace

BasisLayout LayoutOfBasis(const State& state) {
  BasisLayout layout = {};
  layout.gains_ofs = AlignUp(static_cast<size_t>(state.num_tiles), 16);
  layout.reflectors_ofs = layout.gains_ofs + static_cast<size_t>(state.fold()) * sizeof(F16);
  size_t end = layout.reflectors_ofs + ReflectorBytes(state.fold(), state.fold() - 1);
  if (state.weighted) {
    const int dim = state.shape.dim;
    layout.metric_gains_ofs = AlignUp(end, 16);
    layout.metric_ofs = layout.metric_gains_ofs + static_cast<size_t>(dim) * sizeof(F16);
    end = layout.metric_ofs + ReflectorBytes(dim, MetricReflectors(dim));
  }
  layout.bytes = AlignUp(end);
  return layout;
}

SegmentMap MapOf(const State& state, const std::byte* basis) {
  if (basis == nullptr) {
    return {.bits = state.default_bits, .reflectors = {}, .maybe_gains = nullptr, .mix = state.gauge != Gauge::kSqrt};
  }
  const BasisLayout layout = LayoutOfBasis(state);
  SegmentMap map = {.bits = reinterpret_cast<const uint8_t*>(basis),
                    .reflectors = ViewReflectors(basis + layout.reflectors_ofs, state.fold(), state.fold() - 1),
                    .maybe_gains = reinterpret_cast<const F16*>(basis + layout.gains_ofs),
                    .mix = state.gauge == Gauge::kBalanced};
  if (!state.weighted) return map;
  map.metric = ViewReflectors(basis + layout.metric_ofs, state.shape.dim, MetricReflectors(state.shape.dim));
  map.maybe_metric_gains = reinterpret_cast<const F16*>(basis + layout.metric_gains_ofs);
  return map;
}

const float* ScaleWeights(const State& state, const SegmentMap& map, float* weights) {
  if (state.gauge != Gauge::kKlt || map.maybe_gains == nullptr) return nullptr;
  for (int c = 0; c < state.shape.dim; ++c) {
    const float gain = ToFloat(map.maybe_gains[c]);
    weights[c] = gain * gain;
  }
  return weights;
}

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis) {
  const State& s = AsState(state);
  const BasisLayout layout = LayoutOfBasis(s);
  const auto fold = static_cast<size_t>(s.fold());
  std::memset(basis, 0, layout.bytes);
  const SegmentMap map = MapOf(s, basis);
  Result<std::vector<float>> moments = Covariance(s, data);
  if (!moments.ok()) return moments.status();
  std::vector<float> covariance = *std::move(moments);
  std::vector<float> metric;  // left after ApplyMetric; empty: errors count alike
  if (s.weighted) {
    const std::vector<double> alike = Identity(data.maybe_metric == nullptr ? s.shape.dim : 0);
    metric = WithRidge(s.shape.dim, data.maybe_metric ? data.maybe_metric : alike.data());
    if (!AllFinite(metric)) return Status::InvalidArgument("decoquant: the metric is not finite");
    ApplyMetric(map, basis + layout.metric_ofs, reinterpret_cast<F16*>(basis + layout.metric_gains_ofs), &metric,
                &covariance);
  }
  std::vector<float> vectors(fold * fold);
  std::vector<float> values(fold);
  SymmetricEigen(s.fold(), covariance.data(), vectors.data(), values.data());
  QuantizeReflectors(s.fold(), s.fold() - 1, vectors.data(), basis + layout.reflectors_ofs);
  const float shrinkage = Shrinkage(fold, data.tokens * static_cast<size_t>(s.shape.dim) / fold);
  values = LatentVariances(map.reflectors, std::move(covariance), shrinkage);
  StoreGains(s, values, reinterpret_cast<F16*>(basis + layout.gains_ofs));
  if (s.weighted) {
    Rotate(map.reflectors, metric.data());
    for (size_t j = 0; j < fold; ++j) values[j] *= metric[j * fold + j];
  }
  StoreWidths(s, values, reinterpret_cast<uint8_t*>(basis));
  return Status::Ok();
}

Status CheckBasis(const CodecState& state, const std::byte* basis) {
  const State& s = AsState(state);
  const SegmentMap map = MapOf(s, basis);
  int total = 0;
  for (int tile = 0; tile < s.num_tiles; ++tile) {
    if (!ValidTileBits(map.bits[tile]))
      return Status::Corruption(StrFormat("decoquant: tile %d has width %d", tile, map.bits[tile]));
    if (s.gauge != Gauge::kKlt && map.bits[tile] != s.default_bits[tile])
      return Status::Corruption("decoquant: widths differ from the options");
    total += map.bits[tile];
  }
  if (total != s.total_bits)
    return Status::Corruption(StrFormat("decoquant: widths sum to %d instead of %d", total, s.total_bits));
  KVANT_TRY(CheckGains(map.maybe_gains, s.fold()));
  KVANT_TRY(CheckReflectors("decoquant", map.reflectors));
  if (s.weighted) KVANT_TRY(CheckGains(map.maybe_metric_gains, s.shape.dim));
  return CheckReflectors("decoquant", map.metric);
}

}  // namespace kvant::decoquant
