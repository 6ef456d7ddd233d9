// Fits the constants of a basis: ranges of key channels, levels by weighted k-means.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "codec/kvquant/kvquant.h"

namespace kvant::kvquant {
namespace {

// A channel that hardly varies gets this share of the widest range: what leaves it are outliers.
constexpr float kLeastHalf = 1.0f / 1024;
constexpr float kLeastNormal = 0x1p-14f;  // of fp16

void StoreLevels(const State& s, const LevelHistogram& histogram, std::byte* basis) {
  const FittedLevels fitted = histogram.Fit(s.bits, s.keep_moments);
  std::memcpy(basis, fitted.levels, sizeof(fitted.levels));
  std::memcpy(basis + kMaxLevels, fitted.thresholds, sizeof(fitted.thresholds));
}

double TokenWeight(const FitData& data, size_t token) {
  return data.maybe_weights ? static_cast<double>(data.maybe_weights[token]) : 1.0;
}

// ---- keys

// The values of a channel that leave half of `share` on either side.
TokenRange ChannelRange(const FitData& data, int dim, int channel, double share) {
  std::vector<float> values(data.tokens);
  for (size_t t = 0; t < data.tokens; ++t)
    values[t] = data.rows[t * static_cast<size_t>(dim) + static_cast<size_t>(channel)];
  const auto at = [&](double quantile) {
    const auto nth =
        values.begin() + static_cast<ptrdiff_t>(std::lround(quantile * static_cast<double>(data.tokens - 1)));
    std::nth_element(values.begin(), nth, values.end());
    return *nth;
  };
  const float low = at(share / 2);
  return RangeOf(low, at(1.0 - share / 2));
}

Status FitKeys(const State& s, const FitData& data, std::byte* basis) {
  const int dim = s.shape.dim;
  const BasisView view(s, basis);
  auto* mids = const_cast<F16*>(view.mids);
  auto* halves = const_cast<F16*>(view.halves);
  float widest = kLeastNormal / kLeastHalf;
  for (int c = 0; c < dim; ++c) {
    const TokenRange range = ChannelRange(data, dim, c, s.outlier_share);
    mids[c] = range.mid;
    halves[c] = range.half;
    if (!std::isfinite(ToFloat(range.mid)) || !std::isfinite(ToFloat(range.half))) {
      return Status::InvalidArgument(StrFormat("kvquant: the range of key channel %d does not fit fp16", c));
    }
    widest = std::max(widest, ToFloat(range.half));
  }
  LevelHistogram histogram;
  for (int c = 0; c < dim; ++c) {
    halves[c] = ToF16(std::max(ToFloat(halves[c]), widest * kLeastHalf));
    const double half = static_cast<double>(ToFloat(halves[c]));
    const size_t diagonal = static_cast<size_t>(c) * static_cast<size_t>(dim + 1);
    const double cost = half * half * (data.maybe_metric ? data.maybe_metric[diagonal] : 1.0);
    for (size_t t = 0; t < data.tokens; ++t) {
      const float value = data.rows[t * static_cast<size_t>(dim) + static_cast<size_t>(c)];
      histogram.Add((value - ToFloat(mids[c])) / ToFloat(halves[c]), cost * TokenWeight(data, t));
    }
  }
  StoreLevels(s, histogram, basis);
  return Status::Ok();
}

// ---- values: as pages of 64 rows are encoded

void AddPage(const State& s, const FitData& data, size_t first, LevelHistogram* histogram) {
  const int dim = s.shape.dim;
  const float* rows = data.rows + first * static_cast<size_t>(dim);
  OutlierPicker outliers(s.slots);
  TokenRange ranges[kTokensPerPage];
  PickValueOutliers(s, rows, &outliers);
  FitRanges(s, rows, outliers, ranges);
  for (int t = 0; t < kTokensPerPage; ++t) {
    const double half = static_cast<double>(ToFloat(ranges[t].half));
    const double weight = half * half * TokenWeight(data, first + static_cast<size_t>(t));
    for (int c = 0; c < dim; ++c) {
      histogram->Add((rows[t * dim + c] - ToFloat(ranges[t].mid)) * ranges[t].inverse(), weight);
    }
  }
}

Status FitValues(const State& s, const FitData& data, std::byte* basis) {
  LevelHistogram histogram;
  for (size_t first = 0; first + kTokensPerPage <= data.tokens; first += kTokensPerPage) {
    AddPage(s, data, first, &histogram);
  }
  StoreLevels(s, histogram, basis);
  return Status::Ok();
}

}  // namespace

size_t BasisBytes(const State& s) {
  const size_t ranges = s.keys() ? 2 * sizeof(F16) * static_cast<size_t>(s.shape.dim) : 0;
  return kMaxLevels * (sizeof(uint8_t) + sizeof(float)) + ranges;
}

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis) {
  const State& s = AsState(state);
  if (data.tokens < kTokensPerPage) {
    return Status::InvalidArgument(
        StrFormat("kvquant: %zu rows to fit to; at least %d are needed", data.tokens, kTokensPerPage));
  }
  std::memset(basis, 0, s.basis_bytes);
  return (s.keys() ? FitKeys : FitValues)(s, data, basis);
}

Status CheckBasis(const CodecState& state, const std::byte* basis) {
  const State& s = AsState(state);
  const BasisView view(s, basis);
  for (int i = 0; i < s.num_thresholds(); ++i) {
    const bool rises = i == 0 || view.thresholds[i] >= view.thresholds[i - 1];
    if (!std::isfinite(view.thresholds[i]) || !rises) {
      return Status::Corruption(StrFormat("kvquant: threshold %d of a basis is not valid", i));
    }
  }
  for (int c = 0; s.keys() && c < s.shape.dim; ++c) {
    const float half = ToFloat(view.halves[c]);
    if (!std::isfinite(ToFloat(view.mids[c])) || !std::isfinite(half) || half < kLeastNormal) {
      return Status::Corruption(StrFormat("kvquant: the range of key channel %d in a basis is not valid", c));
    }
  }
  return Status::Ok();
}

}  // namespace kvant::kvquant
