// What is fitted: which channels are outliers, TurboESM's map and its table.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <vector>

#include "codec/parts/covariance.h"
#include "codec/parts/eigen_basis.h"
#include "codec/parts/page_scalars.h"
#include "codec/turboquant/turboquant.h"

namespace kvant::turboquant {
namespace {

// Rows as blocks see them: less their page's mean, when blocks are encoded so.
std::vector<float> RowsOf(const State& s, const FitData& data) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::vector<float> rows(data.rows, data.rows + data.tokens * dim);
  if (s.centred) CentrePages(data.tokens, s.shape.dim, rows.data());
  return rows;
}

// ---- outliers: the channels of most energy

void FitOutliers(const State& s, const std::vector<float>& rows, uint8_t* outliers) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::vector<double> energy(dim);
  for (size_t i = 0; i < rows.size(); ++i) energy[i % dim] += static_cast<double>(rows[i]) * rows[i];
  std::vector<uint8_t> order(dim);
  std::iota(order.begin(), order.end(), uint8_t{0});
  std::stable_sort(order.begin(), order.end(), [&](uint8_t a, uint8_t b) { return energy[a] > energy[b]; });
  std::sort(order.begin(), order.begin() + s.classes[0].channels());
  std::copy_n(order.begin(), s.classes[0].channels(), outliers);
}

// ---- svd: right singular vectors of the rows, which are not centred

Status FitReflectors(const State& s, const FitData& data, std::vector<float> rows, std::byte* bytes) {
  const auto dim = static_cast<size_t>(s.shape.dim);
  for (size_t i = 0; data.maybe_weights && i < rows.size(); ++i) rows[i] *= std::sqrt(data.maybe_weights[i / dim]);
  const Result<std::vector<float>> moments = SecondMoments("turboquant", rows.data(), data.tokens, s.shape.dim);
  if (!moments.ok()) return moments.status();
  std::vector<float> vectors(dim * dim);
  std::vector<float> values(dim);
  SymmetricEigen(s.shape.dim, moments->data(), vectors.data(), values.data());
  QuantizeReflectors(s.shape.dim, s.shape.dim - 1, vectors.data(), bytes);
  return Status::Ok();
}

// ---- table: k-means of all latents

struct Sample {
  float value;
  float weight;
};

std::vector<Sample> SortedLatents(const State& s, const FitData& data, const std::vector<float>& rows,
                                  const std::byte* basis) {
  const SegmentView view(s, basis);
  const auto dim = static_cast<size_t>(s.shape.dim);
  std::vector<Sample> samples;
  samples.reserve(rows.size());
  std::vector<float> row(dim);
  for (size_t t = 0; t < data.tokens; ++t) {
    std::copy_n(rows.data() + t * dim, dim, row.begin());
    if (s.rotation == Rotation::kSvd) ReflectRow(view.reflectors(), row.data());
    const float weight = data.maybe_weights ? data.maybe_weights[t] : 1.0f;
    for (const float value : row) samples.push_back({value, weight});
  }
  std::sort(samples.begin(), samples.end(), [](const Sample& a, const Sample& b) { return a.value < b.value; });
  return samples;
}

// Lloyd's algorithm on sorted samples: a cluster is a range, its mean a difference of running sums.
class SortedMeans {
 public:
  explicit SortedMeans(const std::vector<Sample>& samples) : samples_(samples), sums_(samples.size() + 1) {
    for (size_t i = 0; i < samples.size(); ++i) {
      const double weight = samples[i].weight;
      sums_[i + 1] = {sums_[i].weight + weight, sums_[i].value + weight * samples[i].value};
    }
  }
  // The sample below which `share` of the weight lies.
  float Quantile(double share) const {
    const auto above = std::upper_bound(sums_.begin() + 1, sums_.end() - 1, share * sums_.back().weight,
                                        [](double weight, const Sum& sum) { return weight < sum.weight; });
    return samples_[static_cast<size_t>(above - sums_.begin()) - 1].value;
  }
  // Samples not above the border.
  size_t CountUpTo(float border) const {
    return static_cast<size_t>(std::upper_bound(samples_.begin(), samples_.end(), border,
                                                [](float b, const Sample& s) { return b < s.value; }) -
                               samples_.begin());
  }
  float Mean(size_t first, size_t last, float otherwise) const {
    const double weight = sums_[last].weight - sums_[first].weight;
    return weight > 0.0 ? static_cast<float>((sums_[last].value - sums_[first].value) / weight) : otherwise;
  }

 private:
  struct Sum {
    double weight = 0.0;
    double value = 0.0;
  };
  const std::vector<Sample>& samples_;
  std::vector<Sum> sums_;
};

std::vector<float> FitMeans(const std::vector<Sample>& samples, size_t count) {
  constexpr int kMaxRounds = 200;  // it moves by less than a float long before
  const SortedMeans means(samples);
  std::vector<float> centres(count);
  for (size_t i = 0; i < count; ++i)
    centres[i] = means.Quantile((static_cast<double>(i) + 0.5) / static_cast<double>(count));
  for (int round = 0; round < kMaxRounds; ++round) {
    const std::vector<float> last = centres;
    size_t from = 0;
    for (size_t i = 0; i < count; ++i) {
      const size_t to = i + 1 < count ? means.CountUpTo(0.5f * (last[i] + last[i + 1])) : samples.size();
      centres[i] = means.Mean(from, to, last[i]);
      from = to;
    }
    if (centres == last) break;
  }
  return centres;
}

// Mean distance of the samples from their centres.
float MeanMagnitude(const std::vector<Sample>& samples, const std::vector<float>& centres) {
  double sum = 0.0;
  double weight = 0.0;
  size_t i = 0;
  for (const Sample& sample : samples) {
    while (i + 1 < centres.size() && sample.value > 0.5f * (centres[i] + centres[i + 1])) ++i;
    sum += static_cast<double>(sample.weight) * std::abs(sample.value - centres[i]);
    weight += sample.weight;
  }
  return weight > 0.0 ? static_cast<float>(sum / weight) : 0.0f;
}

// With the sign of the residual a code is (index of the centre, sign): the borders are the centres as well as the
// middles between them, the values lie on both sides of each centre.
TableCodebook WithSigns(const std::vector<float>& centres, float residual) {
  std::vector<float> values;
  std::vector<float> thresholds;
  for (size_t i = 0; i < centres.size(); ++i) {
    values.insert(values.end(), {centres[i] - residual, centres[i] + residual});
    thresholds.push_back(centres[i]);
    if (i + 1 < centres.size()) thresholds.push_back(0.5f * (centres[i] + centres[i + 1]));
  }
  return MakeTable(values, thresholds);
}

TableCodebook FitTable(const State& s, const std::vector<Sample>& samples) {
  const bool sign = s.residual == Residual::kSign;
  const std::vector<float> centres = FitMeans(samples, size_t{1} << (s.table_bits - (sign ? 1 : 0)));
  return sign ? WithSigns(centres, MeanMagnitude(samples, centres)) : MakeTable(centres);
}

Status CheckTable(const State& s, const TableCodebook& table) {
  if (table.bits != s.table_bits) return Status::Corruption(StrFormat("turboquant: table of %d bits", table.bits));
  if (!(table.step > 0.0f && table.step <= kF16Max)) return Status::Corruption("turboquant: step of the table");
  for (int i = 0; i + 1 < table.entries(); ++i) {
    if (std::isfinite(table.thresholds[i]) && (i == 0 || table.thresholds[i] >= table.thresholds[i - 1])) continue;
    return Status::Corruption(StrFormat("turboquant: threshold %d of the table is out of order", i));
  }
  return Status::Ok();
}

}  // namespace

BasisLayout LayoutOfBasis(const State& state) {
  BasisLayout layout;
  layout.table_ofs = state.num_classes == 2 ? AlignUp(static_cast<size_t>(state.classes[0].channels()), 16) : 0;
  layout.reflectors_ofs = layout.table_ofs + (state.calibrated ? AlignUp(sizeof(TableCodebook), 16) : 0);
  const bool svd = state.rotation == Rotation::kSvd;
  layout.bytes = AlignUp(layout.reflectors_ofs + (svd ? ReflectorBytes(state.shape.dim, state.shape.dim - 1) : 0));
  return layout;
}

SegmentView::SegmentView(const State& state, const std::byte* maybe_basis) : state_(state) {
  if (maybe_basis == nullptr) return;
  const BasisLayout layout = LayoutOfBasis(state);
  if (state.num_classes == 2) outliers_ = reinterpret_cast<const uint8_t*>(maybe_basis);
  if (state.calibrated) {
    table_ = reinterpret_cast<const TableCodebook*>(maybe_basis + layout.table_ofs);
    books_ = AsCodebookSet(*table_);
  }
  if (state.rotation == Rotation::kSvd) {
    reflectors_ = ViewReflectors(maybe_basis + layout.reflectors_ofs, state.shape.dim, state.shape.dim - 1);
  }
}

Status FitBasis(const CodecState& state, const FitData& data, std::byte* basis) {
  const State& s = AsState(state);
  const BasisLayout layout = LayoutOfBasis(s);
  if (data.tokens == 0) return Status::InvalidArgument("turboquant: no rows to fit a basis to");
  std::memset(basis, 0, layout.bytes);
  const std::vector<float> rows = RowsOf(s, data);
  if (s.num_classes == 2) FitOutliers(s, rows, reinterpret_cast<uint8_t*>(basis));
  if (s.rotation == Rotation::kSvd) KVANT_TRY(FitReflectors(s, data, rows, basis + layout.reflectors_ofs));
  if (!s.calibrated) return Status::Ok();
  TableCodebook blank{.bits = s.table_bits};  // the view of the map needs a table to look at
  std::memcpy(basis + layout.table_ofs, &blank, sizeof(blank));
  const TableCodebook table = FitTable(s, SortedLatents(s, data, rows, basis));
  std::memcpy(basis + layout.table_ofs, &table, sizeof(table));
  return CheckTable(s, table);
}

Status CheckBasis(const CodecState& state, const std::byte* basis) {
  const State& s = AsState(state);
  const BasisLayout layout = LayoutOfBasis(s);
  const auto* outliers = reinterpret_cast<const uint8_t*>(basis);
  for (int i = 0; s.num_classes == 2 && i < s.classes[0].channels(); ++i) {
    if (outliers[i] < s.shape.dim && (i == 0 || outliers[i] > outliers[i - 1])) continue;
    return Status::Corruption(
        StrFormat("turboquant: outlier channel %d is %d, out of order or of 0..%d", i, outliers[i], s.shape.dim - 1));
  }
  if (s.calibrated) {
    KVANT_TRY(CheckTable(s, *reinterpret_cast<const TableCodebook*>(basis + layout.table_ofs)));
  }
  if (s.rotation != Rotation::kSvd) return Status::Ok();
  const ReflectorView reflectors = ViewReflectors(basis + layout.reflectors_ofs, s.shape.dim, s.shape.dim - 1);
  return CheckReflectors("turboquant", reflectors);
}

}  // namespace kvant::turboquant
