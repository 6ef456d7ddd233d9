// Codebooks: fitted to rows by k-means, checked.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "codec/cq/cq_kernels.h"
#include "codec/parts/split_mix.h"
#include "codec/parts/strip.h"

namespace kvant::cq {
namespace {

// Rows further than this many standard deviations from the mean do not stretch the grid: an outlier would take the
// levels from all others. Reached only where rows do have such outliers.
constexpr double kGridDeviations = 6.0;
// A step is at least this share of the values' size, so that rows without variance have a grid, too.
constexpr double kLeastStep = 1e-6;
// What is added to a metric's diagonal, as a share of its mean: it bounds how far a map can be from singular.
constexpr double kRidge = 1e-3;
// Lloyd's iterations end when one gains less than this share of the error, which they do long before the last.
constexpr double kLeastGain = 1e-4;
constexpr int kMaxIterations = 50;

constexpr uint64_t kSeed = 0x6371;

double Weight(const FitData& data, size_t row) {
  return data.maybe_weights ? static_cast<double>(data.maybe_weights[row]) : 1.0;
}

// ---- the grid of a group

/// Cholesky factor of a metric's block, lower triangle of l [n][n]: e^T metric e = |l^T e|^2. The identity without one.
Status FactorMetric(const FitData& data, size_t dim, size_t first, size_t n, double* l) {
  std::fill_n(l, n * n, 0.0);
  double trace = 0.0;
  for (size_t i = 0; data.maybe_metric && i < n; ++i) trace += data.maybe_metric[(first + i) * dim + first + i];
  for (size_t i = 0; i < n; ++i) {
    for (size_t j = 0; j <= i; ++j) {
      double sum = i == j ? 1.0 : 0.0;
      if (trace != 0.0) {
        const double* metric = data.maybe_metric + (first + i) * dim + first;
        sum = metric[j] / trace * static_cast<double>(n) + (i == j ? kRidge : 0.0);
      }
      for (size_t k = 0; k < j; ++k) sum -= l[i * n + k] * l[j * n + k];
      if (i == j && !(sum > 0.0)) {
        return Status::InvalidArgument(
            StrFormat("cq: the metric of channels %zu..%zu is not positive", first, first + n - 1));
      }
      l[i * n + j] = i == j ? std::sqrt(sum) : sum / l[j * n + j];
    }
  }
  return Status::Ok();
}

/// Where the rows lie along one coordinate: what the grid has to cover.
struct Extent {
  double low, high;
};

/// Of the coordinate sum over j of factor[j] * row[j].
Extent MeasureExtent(const FitData& data, size_t dim, size_t first, const double* factor, size_t n) {
  double total = 0.0, sum = 0.0, squares = 0.0, min = INFINITY, max = -INFINITY;
  for (size_t t = 0; t < data.tokens; ++t) {
    double y = 0.0;
    for (size_t j = 0; j < n; ++j) y += factor[j] * static_cast<double>(data.rows[t * dim + first + j]);
    const double weight = Weight(data, t);
    total += weight;
    sum += weight * y;
    squares += weight * y * y;
    min = std::min(min, y);
    max = std::max(max, y);
  }
  const double mean = sum / total;
  const double reach = kGridDeviations * std::sqrt(std::max(squares / total - mean * mean, 0.0));
  return {std::max(min, mean - reach), std::min(max, mean + reach)};
}

/// Writes offsets and map of one group: levels 0..255 cover the rows, with one step for all coordinates.
Status FitGrid(const FitData& data, size_t dim, size_t first, size_t n, float* offsets, float* map) {
  double l[kMaxChannels * kMaxChannels];
  KVANT_TRY(FactorMetric(data, dim, first, n, l));
  double origin[kMaxChannels];
  double step = 0.0;
  for (size_t i = 0; i < n; ++i) {
    double factor[kMaxChannels] = {};
    for (size_t j = i; j < n; ++j) factor[j] = l[j * n + i];  // row i of l^T
    const Extent extent = MeasureExtent(data, dim, first, factor, n);
    if (!std::isfinite(extent.low) || !std::isfinite(extent.high)) {
      return Status::InvalidArgument("cq: rows or weights that codebooks cannot be fitted to: not finite, or all zero");
    }
    origin[i] = (extent.low + extent.high) / 2;
    const double size = std::max(std::abs(extent.low), std::abs(extent.high));
    step = std::max({step, (extent.high - extent.low) / 255, size * kLeastStep, kLeastStep});
  }
  // R = step * l^-T and offset = l^-T origin', solved from the last row up.
  double inverse[kMaxChannels][kMaxChannels] = {};
  for (size_t j = 0; j < n; ++j) {
    for (size_t i = j + 1; i-- > 0;) {
      double sum = i == j ? 1.0 : 0.0;
      for (size_t k = i + 1; k <= j; ++k) sum -= l[k * n + i] * inverse[k][j];
      inverse[i][j] = sum / l[i * n + i];
    }
  }
  for (size_t i = 0; i < n; ++i) {
    double offset = 0.0;
    for (size_t j = i; j < n; ++j) {
      offset += inverse[i][j] * (origin[j] - 127.5 * step);
      *map++ = static_cast<float>(inverse[i][j] * step);
    }
    offsets[first + i] = static_cast<float>(offset);
  }
  return Status::Ok();
}

// ---- k-means of one group, on the grid

/// Levels of all rows as the search reads them: pages of [dim / 4][64][4], the last one filled up with zeros.
std::vector<uint8_t> QuantizeRows(const Codebooks& books, const FitData& data) {
  const auto dim = static_cast<size_t>(books.dim);
  const size_t pages = (data.tokens + kTokensPerPage - 1) / kTokensPerPage;
  std::vector<uint8_t> levels(pages * kTokensPerPage * dim);
  std::vector<float> inverse(static_cast<size_t>(books.groups() * TriangleSize(books.channels)));
  InvertMaps(books, inverse.data());
  Strip strip;
  for (size_t t = 0; t < data.tokens; t += kStripRows) {
    const int count = static_cast<int>(std::min<size_t>(kStripRows, data.tokens - t));
    LoadStrip(data.rows + t * dim, dim, count, books.dim, strip.values);
    GetKernels().quantize(books, inverse.data(), strip.values, static_cast<int>(t % kTokensPerPage),
                          levels.data() + t / kTokensPerPage * kTokensPerPage * dim);
  }
  return levels;
}

class KMeans {
 public:
  /// `centroids`: those of the group, [channels][2^bits], to be filled.
  KMeans(const Codebooks& books, int group, const FitData& data, const std::vector<uint8_t>& levels, uint8_t* centroids)
      : books_(books),
        group_(group),
        channels_(static_cast<size_t>(books.channels)),
        num_codes_(static_cast<size_t>(books.num_codes())),
        data_(data),
        levels_(levels),
        centroids_(centroids),
        rows_(channels_ * data.tokens),
        distance_(data.tokens),
        code_(data.tokens) {
    for (size_t t = 0; t < data.tokens; ++t) {
      for (size_t i = 0; i < channels_; ++i) rows_[i * data.tokens + t] = LevelOf(t, i);
    }
  }

  void Run() {
    Seed();
    double before = Assign();
    for (int i = 0; i < kMaxIterations; ++i) {
      const std::vector<uint8_t> kept(centroids_, centroids_ + channels_ * num_codes_);
      MoveCentroids();
      const double error = Assign();
      if (error >= before) std::copy(kept.begin(), kept.end(), centroids_);  // rounding to the grid, at the very end
      if (!(before - error > kLeastGain * before)) return;
      before = error;
    }
  }

 private:
  uint8_t LevelOf(size_t row, size_t i) const {
    const size_t c = static_cast<size_t>(group_) * channels_ + i;
    const size_t page = row / kTokensPerPage * kTokensPerPage * static_cast<size_t>(books_.dim);
    return levels_[page + (c / 4 * kTokensPerPage + row % kTokensPerPage) * 4 + c % 4];
  }
  uint8_t& Centroid(size_t code, size_t i) { return centroids_[i * num_codes_ + code]; }

  void PlaceAt(size_t code, size_t row) {
    for (size_t i = 0; i < channels_; ++i) Centroid(code, i) = rows_[i * data_.tokens + row];
  }

  /// k-means++: each centroid is a row drawn with probability proportional to weight times squared distance to the
  /// nearest centroid so far. When no row is left that differs, the others equal the first.
  void Seed() {
    SplitMix64 random(kSeed + static_cast<uint64_t>(group_));
    std::fill(distance_.begin(), distance_.end(), INT32_MAX);
    size_t row = 0;  // the first one is drawn by weight alone
    for (size_t code = 0; code < num_codes_; ++code) {
      const bool found = Draw(code == 0, random, &row);
      PlaceAt(code, found || code == 0 ? row : first_row_);
      if (code == 0) first_row_ = row;
      if (found) ComeNearer(code);
    }
  }

  double Mass(size_t row, bool by_weight) const {
    return Weight(data_, row) * (by_weight ? 1.0 : static_cast<double>(distance_[row]));
  }

  bool Draw(bool by_weight, SplitMix64& random, size_t* row) const {
    double total = 0.0;
    for (size_t t = 0; t < data_.tokens; ++t) total += Mass(t, by_weight);
    double left = random.Uniform() * total;
    if (!(total > 0.0)) return false;
    for (size_t t = 0; t < data_.tokens; ++t) {
      const double mass = Mass(t, by_weight);
      if (mass > 0.0) *row = t;
      left -= mass;
      if (left < 0.0) break;
    }
    return true;
  }

  /// Distances to `code` where it is the nearest centroid.
  void ComeNearer(size_t code) {
    std::vector<int32_t> sums(data_.tokens);
    for (size_t i = 0; i < channels_; ++i) {
      const uint8_t* values = rows_.data() + i * data_.tokens;
      const int32_t at = Centroid(code, i);
      for (size_t t = 0; t < data_.tokens; ++t) sums[t] += (values[t] - at) * (values[t] - at);
    }
    for (size_t t = 0; t < data_.tokens; ++t) distance_[t] = std::min(distance_[t], sums[t]);
  }

  /// Nearest centroids and distances of all rows, by the encoder's own search; returns the weighted error.
  double Assign() {
    double error = 0.0;
    alignas(64) uint16_t codes[kTokensPerPage];
    for (size_t t = 0; t < data_.tokens; ++t) {
      if (t % kTokensPerPage == 0) {
        GetKernels().search(books_, group_, levels_.data() + t * static_cast<size_t>(books_.dim), codes);
      }
      code_[t] = codes[t % kTokensPerPage];
      int32_t distance = 0;
      for (size_t i = 0; i < channels_; ++i) {
        const int32_t difference = rows_[i * data_.tokens + t] - Centroid(code_[t], i);
        distance += difference * difference;
      }
      distance_[t] = distance;
      error += Weight(data_, t) * distance;
    }
    return error;
  }

  /// Centroids to the weighted means of their rows; those without rows to the rows that cost most.
  void MoveCentroids() {
    std::vector<double> sums(channels_ * num_codes_), totals(num_codes_);
    for (size_t t = 0; t < data_.tokens; ++t) {
      totals[code_[t]] += Weight(data_, t);
      for (size_t i = 0; i < channels_; ++i) {
        sums[i * num_codes_ + code_[t]] += Weight(data_, t) * rows_[i * data_.tokens + t];
      }
    }
    std::vector<size_t> empty;
    for (size_t code = 0; code < num_codes_; ++code) {
      if (!(totals[code] > 0.0)) empty.push_back(code);
      for (size_t i = 0; totals[code] > 0.0 && i < channels_; ++i) {
        Centroid(code, i) = static_cast<uint8_t>(std::nearbyint(sums[i * num_codes_ + code] / totals[code]));
      }
    }
    PlaceEmpty(empty);
  }

  void PlaceEmpty(const std::vector<size_t>& empty) {
    std::vector<size_t> costly(data_.tokens);
    std::iota(costly.begin(), costly.end(), size_t{0});
    const size_t count = std::min(empty.size(), costly.size());
    const auto more = [&](size_t a, size_t b) {
      return Mass(a, false) != Mass(b, false) ? Mass(a, false) > Mass(b, false) : a < b;
    };
    std::partial_sort(costly.begin(), costly.begin() + static_cast<ptrdiff_t>(count), costly.end(), more);
    for (size_t k = 0; k < count && distance_[costly[k]] > 0; ++k) PlaceAt(empty[k], costly[k]);
  }

  const Codebooks& books_;
  const int group_;
  const size_t channels_;
  const size_t num_codes_;
  const FitData& data_;
  const std::vector<uint8_t>& levels_;
  uint8_t* const centroids_;
  std::vector<uint8_t> rows_;  ///< [channels][tokens] levels of the group
  std::vector<int32_t> distance_;
  std::vector<uint16_t> code_;
  size_t first_row_ = 0;
};

}  // namespace

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis) {
  const State& s = AsState(state);
  if (data.tokens == 0) return Status::InvalidArgument("cq: no rows to fit codebooks to");
  const auto dim = static_cast<size_t>(s.shape.dim);
  const auto channels = static_cast<size_t>(s.channels);
  std::memset(basis, 0, s.basis_bytes);
  const Codebooks books = ViewBasis(s, basis);
  auto* offsets = const_cast<float*>(books.offsets);
  auto* map = const_cast<float*>(books.maps);
  for (size_t first = 0; first < dim; first += channels, map += TriangleSize(s.channels)) {
    KVANT_TRY(FitGrid(data, dim, first, channels, offsets, map));
  }
  const std::vector<uint8_t> levels = QuantizeRows(books, data);
  for (int g = 0; g < s.groups(); ++g) {
    const size_t ofs = (static_cast<size_t>(g) * channels) << s.bits;
    KMeans(books, g, data, levels, const_cast<uint8_t*>(books.centroids) + ofs).Run();
  }
  return Status::Ok();
}

Status CheckBasis(const CodecState& state, const std::byte* basis) {
  const State& s = AsState(state);
  const Codebooks books = ViewBasis(s, basis);
  constexpr float kLargest = 1e7f;  // of offsets and maps: what fp16 rows can lead to, and more
  constexpr float kSteepest = 1e9f;
  const auto valid = [](float value, float limit) { return std::abs(value) <= limit; };
  for (int c = 0; c < s.shape.dim; ++c) {
    if (!valid(books.offsets[c], kLargest)) return Status::Corruption(StrFormat("cq: offset %d is out of range", c));
  }
  const int values = s.groups() * TriangleSize(s.channels);
  std::vector<float> inverse(static_cast<size_t>(values));
  InvertMaps(books, inverse.data());
  for (int i = 0; i < values; ++i) {
    if (valid(books.maps[i], kLargest) && valid(inverse[static_cast<size_t>(i)], kSteepest)) continue;
    return Status::Corruption(
        StrFormat("cq: the map of group %d is out of range or singular", i / TriangleSize(s.channels)));
  }
  return Status::Ok();
}

}  // namespace kvant::cq
