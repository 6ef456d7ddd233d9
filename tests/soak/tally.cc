#include "tally.h"

#include <algorithm>
#include <numeric>

#include "quantile.h"

namespace kvant {
namespace {

using Json = nlohmann::ordered_json;

struct Summary {
  double mean = 0, p99 = 0, max = 0;
};

Summary Summarize(const std::vector<double>& kl) {
  if (kl.empty()) return {};
  return {.mean = std::accumulate(kl.begin(), kl.end(), 0.0) / static_cast<double>(kl.size()),
          .p99 = Quantile(kl, 0.99),
          .max = *std::ranges::max_element(kl)};
}

std::string Say(const Summary& s) { return StrFormat("KL mean %.1e, p99 %.1e, max %.1e", s.mean, s.p99, s.max); }

Json ToJsonRow(const std::vector<double>& kl) {
  const Summary s = Summarize(kl);
  return {{"rows", kl.size()}, {"mean", s.mean}, {"p99", s.p99}, {"max", s.max}};
}

}  // namespace

Status Tally::Add(OperationKind kind, std::span<const double> kl, const Limits& limits) {
  Row& row = by_kind_[static_cast<size_t>(kind)];
  ++row.operations;
  ++operations_;
  for (size_t i = 0; i < kl.size(); ++i) {
    if (!(kl[i] <= limits.kl)) {  // NaN as well
      return Status::Internal(StrFormat("KL %.4g in row %zu of %zu, the limit is %g", kl[i], i, kl.size(), limits.kl));
    }
    row.kl.push_back(kl[i]);
    sum_ += kl[i];
    ++rows_;
  }
  return Status::Ok();
}

Status Tally::CheckMean(const Limits& limits) const {
  const double mean = rows_ == 0 ? 0 : sum_ / static_cast<double>(rows_);
  if (mean <= limits.kl_mean) return Status::Ok();
  return Status::Internal(StrFormat("mean KL %.4g, the limit is %g", mean, limits.kl_mean));
}

std::vector<double> Tally::All() const {
  std::vector<double> all;
  for (const Row& row : by_kind_) all.insert(all.end(), row.kl.begin(), row.kl.end());
  return all;
}

std::string Tally::Line() const { return Say(Summarize(All())); }

std::string Tally::Table() const {
  std::string text;
  for (size_t i = 0; i < by_kind_.size(); ++i) {
    const Row& row = by_kind_[i];
    text += StrFormat("%-14s %7lld operations %8zu rows  ", Name(static_cast<OperationKind>(i)),
                      static_cast<long long>(row.operations), row.kl.size());
    text += (row.kl.empty() ? "-" : Say(Summarize(row.kl))) + "\n";
  }
  return text;
}

Json Tally::ToJson() const {
  Json by_operation = Json::object();
  for (size_t i = 0; i < by_kind_.size(); ++i) {
    Json row = {{"operations", by_kind_[i].operations}};
    row.update(ToJsonRow(by_kind_[i].kl));
    by_operation[Name(static_cast<OperationKind>(i))] = row;
  }
  return {{"kl", ToJsonRow(All())}, {"by_operation", by_operation}};
}

}  // namespace kvant
