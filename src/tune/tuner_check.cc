// Is the plan as good as predicted, and better than one scheme for all layers? Second pass, the other text, uniform schemes,
// random plans.
#include <algorithm>
#include <cmath>
#include <random>
#include <utility>

#include "tune/rank_correlation.h"
#include "tune/tuner.h"

namespace kvant {
namespace {

/// Beyond this difference between predicted and measured divergence a second pass follows.
constexpr double kRepairAbove = 0.15;
/// Least and largest correction of one layer's K or V in that pass.
constexpr double kLeastFactor = 0.25;
constexpr double kLargestFactor = 4.0;
/// Times that the limit is drawn in until the divergence on the other text meets it.
constexpr int kMaxRounds = 4;
/// Uniform schemes measured on each side of the plan's bits.
constexpr size_t kNeighbours = 2;

}  // namespace

// The same text: what differs from the prediction is interaction between layers.
Status Tuner::CheckOnTuningText(Picks* picks, TuneResult* result) {
  const double predicted = Predicted(*picks);
  const Result<Measurement> first = tuning_->Measure(SchemeOf(*picks).ToString());
  if (!first.ok()) return first.status();
  result->tuning_kl = first->kl;
  say_(StrFormat("plan: predicted %.5f, measured %.5f on the same text (%+.1f %%)", predicted, first->kl,
                 100 * (first->kl / predicted - 1)));
  if (std::abs(first->kl / predicted - 1) <= kRepairAbove || predicted <= 0 || TimeIsUp()) return Status::Ok();
  say_("second pass: what each layer's K and V costs within the plan");
  const CostTable unrepaired = costs_;
  KVANT_TRY(Repair(*picks, *first));
  Result<Picks> again = options_.budget ? SolveBudget() : SolveMaxKl(options_.max_kl);
  if (!again.ok()) return again.status();
  const Result<Measurement> second = tuning_->Measure(SchemeOf(*again).ToString());
  if (!second.ok()) return second.status();
  const bool is_better = options_.budget ? second->kl < first->kl : second->kl <= options_.max_kl;
  say_(StrFormat("second pass: predicted %.5f, measured %.5f; %s", Predicted(*again), second->kl,
                 is_better ? "taken" : "the first plan is kept"));
  if (!is_better) {
    costs_ = unrepaired;
    return Status::Ok();
  }
  result->is_repaired = *again != *picks;
  result->tuning_kl = second->kl;
  *picks = *again;
  return Status::Ok();
}

// What the plan gains when one layer's K or V is exact, against what that layer was predicted to cost. Differences of two runs
// are noisy, by about half of a run's own standard error since the text is the same; a correction counts as much as it
// stands out of that.
Status Tuner::Repair(const Picks& picks, const Measurement& whole) {
  const double noise = whole.kl_stderr / 2;
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (const bool is_key : {true, false}) {
      const int candidate = picks[Group(layer, is_key)];
      const double cost = Cost(layer, is_key, candidate).value_or(0);
      if (IsExact(candidate) || cost <= 0) continue;
      Picks without = picks;
      without[Group(layer, is_key)] = exact_;
      const Result<Measurement> rest = tuning_->Measure(SchemeOf(without).ToString());
      if (!rest.ok()) return rest.status();
      const double factor = std::clamp((whole.kl - rest->kl) / cost, kLeastFactor, kLargestFactor);
      costs_.Scale(layer, is_key, 1 + (factor - 1) * cost * cost / (cost * cost + noise * noise));
    }
  }
  return Status::Ok();
}

// What the cache really held, where the check is as long as the budget's context.
Status Tuner::CheckBytes(const Measurement& measured) const {
  const double limit = options_.budget->LimitBytes(options_.layers, options_.context);
  if (check_->options().tokens != options_.context || static_cast<double>(measured.bytes) <= limit) return Status::Ok();
  return Status::Internal(StrFormat("the plan holds %lld bytes, more than the budget's %.0f",
                                    static_cast<long long>(measured.bytes), limit));
}

// With max_kl the prediction's limit is drawn in until the other text agrees.
Status Tuner::CheckOnOtherText(Picks* picks, TuneResult* result) {
  double limit = options_.max_kl;
  for (int round = 0;; ++round) {
    const Result<Measurement> measured = check_->Measure(SchemeOf(*picks).ToString());
    if (!measured.ok()) return measured.status();
    result->plan.measured.kl = measured->kl;
    result->plan.measured.kl_stderr = measured->kl_stderr;
    result->plan.measured.bits_per_value = measured->bits_per_value;
    result->plan.measured.tokens = check_->options().tokens;
    say_(StrFormat("plan on the other text: KL %.5f +- %.5f at %.3f bits per value, %d tokens", measured->kl,
                   measured->kl_stderr, measured->bits_per_value, check_->options().tokens));
    if (options_.budget) return CheckBytes(*measured);
    if (measured->kl <= options_.max_kl) return Status::Ok();
    if (round == kMaxRounds) {
      return Status::InvalidArgument(
          StrFormat("max KL %g: not met on the check's text, %g is the best found", options_.max_kl, measured->kl));
    }
    limit *= options_.max_kl / measured->kl * 0.99;
    Result<Picks> tighter = SolveMaxKl(limit);
    if (!tighter.ok()) return tighter.status();
    *picks = *std::move(tighter);
  }
}

std::vector<UniformPoint> Tuner::PredictedUniforms() const {
  std::vector<UniformPoint> points;
  const double values =
      static_cast<double>(ValuesPerToken(options_.layers)) * static_cast<double>(options_.context) / 8;
  for (int key = 0; key < num_candidates(); ++key) {
    for (int value = 0; value < num_candidates(); ++value) {
      if (!Serves(key, true) || !Serves(value, false)) continue;
      const auto key_kl = IsExact(key) ? 0.0 : costs_.PredictedTotal(true, key);
      const auto value_kl = IsExact(value) ? 0.0 : costs_.PredictedTotal(false, value);
      if (!key_kl || !value_kl || *key_kl + *value_kl <= 0) continue;
      Picks picks;
      for (int layer = 0; layer < num_layers(); ++layer) picks.insert(picks.end(), {key, value});
      points.push_back({.cache = Uniform(key, value).ToString(),
                        .bits = BytesOf(picks) / values,
                        .kl = floor_ + *key_kl + *value_kl});
    }
  }
  return points;
}

// The neighbours of the plan on the predicted frontier are measured on the check's text, like the plan.
Status Tuner::CompareWithUniform(TuneResult* result) {
  const std::vector<UniformPoint> frontier = Frontier(PredictedUniforms());
  const double bits = result->plan.measured.bits_per_value;
  const auto above = static_cast<size_t>(
      std::ranges::find_if(frontier, [&](const UniformPoint& p) { return p.bits > bits; }) - frontier.begin());
  const size_t first = above - std::min(above, kNeighbours), last = std::min(frontier.size(), above + kNeighbours);
  std::vector<UniformPoint> measured;
  for (size_t i = first; i < last; ++i) {
    if (TimeIsUp() && !check_->Knows(frontier[i].cache)) {
      say_("time limit: not all uniform schemes were measured");
      break;
    }
    const Result<Measurement> m = check_->Measure(frontier[i].cache);
    if (!m.ok()) return m.status();
    measured.push_back({.cache = frontier[i].cache, .bits = m->bits_per_value, .kl = m->kl});
    result->plan.uniform.push_back({.cache = frontier[i].cache, .kl = m->kl, .bits_per_value = m->bits_per_value});
  }
  if (const std::optional<double> kl = KlAt(Frontier(measured), bits)) {
    result->uniform_kl = *kl;
    const double ratio = result->plan.measured.kl / *kl;
    say_(StrFormat("best uniform scheme at %.3f bits: KL %.5f; the plan has %.3fx of that%s", bits, *kl, ratio,
                   ratio < 1 ? "" : ": take the uniform scheme"));
  }
  return Status::Ok();
}

Status Tuner::Validate(TuneResult* result) {
  std::mt19937_64 random(options_.seed);
  std::vector<double> predicted, measured;
  for (int i = 0; i < options_.validation_plans; ++i) {
    Picks picks;
    for (int layer = 0; layer < num_layers(); ++layer) {
      for (const bool is_key : {true, false}) {
        int candidate = 0;
        do {
          candidate = static_cast<int>(random() % static_cast<uint64_t>(num_candidates()));
        } while (!Serves(candidate, is_key) || IsExact(candidate) || !Cost(layer, is_key, candidate));
        picks.push_back(candidate);
      }
    }
    const std::string cache = SchemeOf(picks).ToString();
    if (TimeIsUp() && !check_->Knows(cache)) break;
    const Result<Measurement> m = check_->Measure(cache);
    if (!m.ok()) return m.status();
    predicted.push_back(Predicted(picks));
    measured.push_back(m->kl);
    result->plan.tuning.validation.push_back({.predicted_kl = predicted.back(), .measured_kl = m->kl});
  }
  if (predicted.empty()) return Status::Ok();
  result->plan.tuning.validation_rank_correlation = RankCorrelation(predicted, measured);
  say_(StrFormat("%zu random plans: rank correlation of predicted with measured KL on the other text %.3f",
                 predicted.size(), result->plan.tuning.validation_rank_correlation));
  return Status::Ok();
}

}  // namespace kvant
