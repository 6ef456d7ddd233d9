// The small factor: fitted to rows, stored, checked, viewed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>
#include <vector>

#include "codec/decoquant/decoquant.h"
#include "codec/parts/covariance.h"
#include "codec/parts/eigen_basis.h"
#include "codec/parts/strip.h"

namespace kvant::decoquant {
namespace {

// Directions weaker than this share of the strongest are treated as if they had it, so that tokens unlike
// those of the fit do not blow up in them.
constexpr float kVarianceFloor = 1e-6f;

// How far latent variances are drawn to their mean: by the share that the coordinates are of the rows they
// were fitted to. A thousand correlated tokens make weak directions look weaker than they are for the tokens
// to come; measured on a model at 3 bits, divergence 0.0045 without, 0.0041 with a share of 0.05, 0.0037 with
// 0.2.
float Shrinkage(size_t dim, size_t rows) { return static_cast<float>(dim) / static_cast<float>(dim + rows); }

// Mean-free copy of the pages of `rows`, when blocks are encoded so.
std::vector<float> Centred(const float* rows, size_t count, size_t dim) {
  std::vector<float> out(rows, rows + count * dim);
  for (size_t first = 0; first < count; first += kTokensPerPage) {
    const size_t n = std::min<size_t>(kTokensPerPage, count - first);
    for (size_t c = 0; c < dim; ++c) {
      float sum = 0.0f;
      for (size_t t = first; t < first + n; ++t) sum += out[t * dim + c];
      for (size_t t = first; t < first + n; ++t) out[t * dim + c] -= sum / static_cast<float>(n);
    }
  }
  return out;
}

// Second moments [fold, fold] of the rows, or of their groups of `fold` channels.
std::vector<float> Covariance(const State& s, const float* rows, size_t tokens) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  const auto fold = static_cast<size_t>(s.fold());
  std::vector<float> centred;
  if (s.centred) {
    centred = Centred(rows, tokens, dim);
    rows = centred.data();
  }
  const size_t count = tokens * dim / fold;  // groups stand one after the other: a fold is a reshape
  std::vector<float> c(fold * fold, 0.0f);
  GetCovarianceKernels().add(rows, count, s.fold(), c.data());
  MirrorUpper(s.fold(), 1.0f / static_cast<float>(count), c.data());
  return c;
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

// Variances to expect along the stored basis, whose columns are not exactly the eigenvectors: the diagonal of
// Q^T C Q, shrunk.
std::vector<float> LatentVariances(const ReflectorView& q, std::vector<float> c, float shrinkage) {
  const auto dim = static_cast<size_t>(q.dim);
  ReflectRows(q, c.data());
  Transpose(dim, c.data());
  ReflectRows(q, c.data());
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

void StoreWidths(const State& s, std::span<const float> variances, uint8_t* bits) {
  if (s.gauge != Gauge::kKlt) {
    std::copy_n(s.default_bits, s.num_tiles, bits);
    return;
  }
  std::vector<double> tiles(static_cast<size_t>(s.num_tiles), 0.0);
  for (size_t j = 0; j < variances.size(); ++j) tiles[j / kTileChannels] += variances[j];
  AllocateBits(tiles, *s.books, s.total_bits, bits);
}

}  // namespace

BasisLayout LayoutOfBasis(const State& state) {
  const size_t gains_ofs = AlignUp(static_cast<size_t>(state.num_tiles), 16);
  const size_t reflectors_ofs = gains_ofs + static_cast<size_t>(state.fold()) * sizeof(F16);
  return {gains_ofs, reflectors_ofs, AlignUp(reflectors_ofs + ReflectorBytes(state.fold()))};
}

SegmentMap MapOf(const State& state, const std::byte* basis) {
  if (basis == nullptr) return {state.default_bits, {}, nullptr, state.gauge != Gauge::kSqrt};
  const BasisLayout layout = LayoutOfBasis(state);
  return {reinterpret_cast<const uint8_t*>(basis), ViewReflectors(basis + layout.reflectors_ofs, state.fold()),
          reinterpret_cast<const F16*>(basis + layout.gains_ofs), state.gauge == Gauge::kBalanced};
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
  const std::vector<float> covariance = Covariance(s, data.rows, data.tokens);
  for (const float value : covariance) {
    if (!std::isfinite(value)) return Status::InvalidArgument("decoquant: rows are too large to fit a basis to");
  }
  std::vector<float> vectors(fold * fold);
  std::vector<float> values(fold);
  SymmetricEigen(s.fold(), covariance.data(), vectors.data(), values.data());
  QuantizeReflectors(s.fold(), vectors.data(), basis + layout.reflectors_ofs);
  const float shrinkage = Shrinkage(fold, data.tokens * static_cast<size_t>(s.shape.dim) / fold);
  values = LatentVariances(ViewReflectors(basis + layout.reflectors_ofs, s.fold()), covariance, shrinkage);
  StoreGains(s, values, reinterpret_cast<F16*>(basis + layout.gains_ofs));
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
  for (int j = 0; j < s.fold(); ++j) {
    const float gain = ToFloat(map.maybe_gains[j]);
    if (!(gain >= 1e-4f && gain <= 1.0f))
      return Status::Corruption(StrFormat("decoquant: gain of channel %d is out of range", j));
  }
  for (int k = 0; k < s.fold() - 1; ++k) {
    const float scale = ToFloat(map.reflectors.scales[k]);
    if (!(scale >= 0.0f && scale <= 1.0f))
      return Status::Corruption(StrFormat("decoquant: reflector %d is out of range", k));
  }
  return Status::Ok();
}

}  // namespace kvant::decoquant
