// The factors of a segment: fitted to its rows, checked, viewed.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "codec/lowrank/lowrank.h"
#include "codec/parts/covariance.h"
#include "codec/parts/eigen_basis.h"
#include "codec/parts/hadamard.h"
#include "codec/parts/page_scalars.h"

namespace kvant::lowrank {
namespace {

std::vector<float> RotatedRows(const State& s, const FitData& data) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::vector<float> rows(data.rows, data.rows + data.tokens * dim);
  for (size_t t = 0; s.rotated && t < data.tokens; ++t) HadamardRow(s.shape.dim, rows.data() + t * dim);
  return rows;
}

// Means over the rows, as stored; leaves the rows without them.
void StoreMean(std::vector<float>* rows, size_t dim, F16* stored) {
  const size_t tokens = rows->size() / dim;
  std::vector<double> sum(dim);
  for (size_t i = 0; i < rows->size(); ++i) sum[i % dim] += (*rows)[i];
  for (size_t c = 0; c < dim; ++c) stored[c] = ToF16(static_cast<float>(sum[c] / static_cast<double>(tokens)));
  for (size_t i = 0; i < rows->size(); ++i) (*rows)[i] -= ToFloat(stored[i % dim]);
}

// A direction in bytes, and the step of its factor: the best uniform one for normal coordinates of this variance.
void StoreDirection(const State& s, const float* vectors, int column, float variance, float* step, int8_t* out) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  const auto entry = [&](size_t c) { return vectors[c * dim + static_cast<size_t>(column)]; };
  float largest = 0.0f;
  for (size_t c = 0; c < dim; ++c) largest = std::max(largest, std::abs(entry(c)));
  float norm2 = 0.0f;
  for (size_t c = 0; c < dim; ++c) {
    out[c] = static_cast<int8_t>(std::nearbyint(entry(c) / largest * 127.0f));
    norm2 += static_cast<float>(out[c] * out[c]);
  }
  *step = UniformCodebooks().by_bits[s.factor_bits].step * std::sqrt(variance / norm2);
}

}  // namespace

size_t BasisBytes(const State& state) {
  if (state.rank == 0) return 0;
  const auto dim = static_cast<size_t>(state.shape.dim);
  const auto rank = static_cast<size_t>(state.rank);
  return AlignUp(dim * sizeof(F16) + rank * sizeof(float) + rank * dim);
}

Factors FactorsOf(const State& state, const std::byte* maybe_basis) {
  if (maybe_basis == nullptr || state.rank == 0) return {};
  const auto* mean = reinterpret_cast<const F16*>(maybe_basis);
  const auto* steps = reinterpret_cast<const float*>(mean + state.shape.dim);
  return {mean, steps, reinterpret_cast<const int8_t*>(steps + state.rank)};
}

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis) {
  const State& s = AsState(state);
  const auto dim = static_cast<size_t>(s.shape.dim);
  if (data.tokens == 0) return Status::InvalidArgument("lowrank: no rows to fit a basis to");
  std::memset(basis, 0, BasisBytes(s));
  const Factors factors = FactorsOf(s, basis);
  std::vector<float> rows = RotatedRows(s, data);
  StoreMean(&rows, dim, const_cast<F16*>(factors.mean));
  const Result<std::vector<float>> covariance = SecondMoments("lowrank", rows.data(), data.tokens, s.shape.dim);
  if (!covariance.ok()) return covariance.status();
  std::vector<float> vectors(dim * dim);
  std::vector<float> variances(dim);
  SymmetricEigen(s.shape.dim, covariance->data(), vectors.data(), variances.data());
  for (int j = 0; j < s.rank; ++j) {
    StoreDirection(s, vectors.data(), j, variances[static_cast<size_t>(j)], const_cast<float*>(factors.steps) + j,
                   const_cast<int8_t*>(factors.directions) + j * s.shape.dim);
  }
  return CheckBasis(state, basis);
}

Status CheckBasis(const CodecState& state, const std::byte* basis) {
  const State& s = AsState(state);
  const Factors factors = FactorsOf(s, basis);
  if (!factors.present()) return Status::Ok();
  KVANT_TRY(CheckPageMeans("lowrank", factors.mean, s.shape.dim));
  for (int j = 0; j < s.rank; ++j) {
    if (factors.steps[j] >= 0.0f && factors.steps[j] <= kF16Max) continue;
    return Status::Corruption(StrFormat("lowrank: step of factor %d is out of range", j));
  }
  return Status::Ok();
}

}  // namespace kvant::lowrank
