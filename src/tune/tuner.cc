#include "tune/tuner.h"

#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <utility>

#include "base/check.h"
#include "eval/cache_cost.h"
#include "tune/rank_correlation.h"

namespace kvant {
namespace {

/// The anchor's rate: low, so that one layer's divergence stands out of the noise of rounding, and near those of plans.
constexpr double kAnchorBits = 1.25;
/// Beyond this difference between predicted and measured divergence a second pass follows.
constexpr double kRepairAbove = 0.10;
/// Least and largest correction of one layer's K or V in that pass.
constexpr double kLeastFactor = 0.25;
constexpr double kLargestFactor = 4.0;
/// Times that a limit is drawn in until what it stands for is met: the peak of the bytes, the divergence on the other text.
constexpr int kMaxRounds = 4;
/// Uniform schemes measured on each side of the plan's bits.
constexpr size_t kNeighbours = 2;

int FindAnchor(const TunerOptions& o, const CandidateCosts& bytes) {
  int best = -1;
  const auto distance = [&](int c) {
    return std::abs((bytes.BitsPerValue(0, true, c) + bytes.BitsPerValue(0, false, c)) / 2 - kAnchorBits);
  };
  for (int c = 0; c < static_cast<int>(o.candidates.size()); ++c) {
    const Candidate& candidate = o.candidates[static_cast<size_t>(c)];
    if (candidate.is_exact || !candidate.keys || !candidate.values) continue;
    if (best < 0 || distance(c) < distance(best)) best = c;
  }
  return best;
}

size_t Group(int layer, bool is_key) { return 2 * static_cast<size_t>(layer) + !is_key; }

}  // namespace

Tuner::Tuner(const TunerOptions& options, KlMeter* tuning, KlMeter* check, const AttentionProbe* maybe_probe, Say say)
    : options_(options),
      tuning_(tuning),
      check_(check),
      maybe_probe_(maybe_probe),
      say_(std::move(say)),
      exact_(static_cast<int>(options.candidates.size()) - 1),
      costs_(static_cast<int>(options.layers.size()), static_cast<int>(options.candidates.size()), 0) {
  KVANT_CHECK(!options_.candidates.empty() && options_.candidates.back().is_exact);
}

bool Tuner::TimeIsUp() const {
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start_;
  return options_.time_limit_s > 0 && elapsed.count() > options_.time_limit_s;
}

// ---- schemes and their bytes

Scheme Tuner::SchemeOf(const Picks& picks) const {
  std::vector<LayerCodecs> layers;
  for (int layer = 0; layer < num_layers(); ++layer) {
    const auto choice = [&](bool is_key) {
      return options_.candidates[static_cast<size_t>(picks[Group(layer, is_key)])].choice;
    };
    layers.push_back({.key = choice(true), .value = choice(false)});
  }
  return Scheme::OfLayers(layers, options_.sink_tokens, options_.recent_tokens);
}

Scheme Tuner::WithSinks(const CodecChoice& key, const CodecChoice& value) const {
  return {.key = key, .value = value, .sink_tokens = options_.sink_tokens, .recent_tokens = options_.recent_tokens};
}

Scheme Tuner::Uniform(int key, int value) const {
  return WithSinks(options_.candidates[static_cast<size_t>(key)].choice,
                   options_.candidates[static_cast<size_t>(value)].choice);
}

double Tuner::BytesOf(const Picks& picks) const {
  double bytes = 0;
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (const bool is_key : {true, false}) bytes += bytes_.Bytes(layer, is_key, picks[Group(layer, is_key)]);
  }
  return bytes;
}

std::optional<double> Tuner::Cost(int layer, bool is_key, int candidate) const {
  if (!Serves(candidate, is_key)) return std::nullopt;
  return IsExact(candidate) ? 0.0 : costs_.Cost(layer, is_key, candidate);
}

double Tuner::Predicted(const Picks& picks) const {
  double kl = std::ranges::all_of(picks, [&](int c) { return IsExact(c); }) ? 0 : floor_;
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (const bool is_key : {true, false}) kl += Cost(layer, is_key, picks[Group(layer, is_key)]).value_or(0);
  }
  return kl;
}

// ---- measuring

// Before hours of measuring: does anything fit?
Status Tuner::CheckBudget() {
  Result<CandidateCosts> bytes =
      CandidateCosts::Of(options_.candidates, options_.layers, options_.sink_tokens, options_.recent_tokens,
                         options_.context, options_.maybe_calibration);
  if (!bytes.ok()) return bytes.status();
  bytes_ = *std::move(bytes);
  const int anchor = FindAnchor(options_, bytes_);
  if (anchor < 0) return Status::InvalidArgument("codecs: none of them encodes both keys and values");
  costs_ = CostTable(num_layers(), num_candidates(), anchor);
  if (!options_.budget) return Status::Ok();
  Picks smallest;
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (const bool is_key : {true, false}) {
      int best = exact_;
      for (int c = 0; c < num_candidates(); ++c) {
        if (Serves(c, is_key) && bytes_.Bytes(layer, is_key, c) < bytes_.Bytes(layer, is_key, best)) best = c;
      }
      smallest.push_back(best);
    }
  }
  const double least = BytesOf(smallest), limit = options_.budget->LimitBytes(options_.layers, options_.context);
  if (least <= limit) return Status::Ok();
  const double tokens = static_cast<double>(options_.context);
  return Status::InvalidArgument(
      StrFormat("budget: no plan fits in %.0f bytes at %lld tokens; the smallest of these codecs takes %.0f (%.3f bits "
                "per value, "
                "%.0f bytes per token)",
                limit, static_cast<long long>(options_.context), least,
                8 * least / tokens / static_cast<double>(ValuesPerToken(options_.layers)), std::ceil(least / tokens)));
}

Result<double> Tuner::MeasureOneLayer(int layer, bool is_key, const CodecChoice& choice) {
  Scheme scheme = Uniform(exact_, exact_);
  (is_key ? scheme.layer_keys : scheme.layer_values)[layer] = choice;
  const std::string cache = scheme.ToString();
  if (TimeIsUp() && !tuning_->Knows(cache)) {
    return Status::InvalidArgument(
        StrFormat("time limit: %g s passed after %d of %d layers were measured; another run goes on from there",
                  options_.time_limit_s, layer, num_layers()));
  }
  const Result<Measurement> measured = tuning_->Measure(cache);
  if (!measured.ok()) return measured.status();
  return measured->kl;
}

// Activations that are rounded on the way (quantised weights) make another result of the least change.
Status Tuner::MeasureFloor() {
  const Result<Measurement> measured = tuning_->Measure(WithSinks(DisturbedChoice(), DisturbedChoice()).ToString());
  if (!measured.ok()) return measured.status();
  floor_ = measured->kl;
  if (floor_ > 0) {
    say_(StrFormat("floor: %.5f, what rows in bf16 cost; no cache that changes anything has less on this model",
                   floor_));
  }
  return Status::Ok();
}

Status Tuner::MeasureProfile() {
  const CodecChoice& anchor = options_.candidates[static_cast<size_t>(costs_.anchor())].choice;
  for (int layer = 0; layer < num_layers(); ++layer) {
    // K and V have the same: what counts is how many layers follow.
    const Result<double> disturbed = MeasureOneLayer(layer, true, DisturbedChoice());
    if (!disturbed.ok()) return disturbed.status();
    for (const bool is_key : {true, false}) {
      const Result<double> coded = MeasureOneLayer(layer, is_key, anchor);
      if (!coded.ok()) return coded.status();
      costs_.SetProfile(layer, is_key, std::max(0.0, *coded - *disturbed));
    }
  }
  const double gain = costs_.ExpectedGain();
  say_(
      StrFormat("expected gain: %.3fx the divergence of one scheme for all layers, at equal bits (geometric over "
                "arithmetic mean of %d costs)%s",
                gain, 2 * num_layers(), gain > 0.97 ? "; one scheme is about right for this model" : ""));
  return Status::Ok();
}

void Tuner::ProbeErrors() {
  if (maybe_probe_ == nullptr) return;
  for (int c = 0; c < num_candidates(); ++c) {
    if (IsExact(c)) continue;
    for (int layer = 0; layer < num_layers(); ++layer) {
      for (const bool is_key : {true, false}) {
        if (!Serves(c, is_key)) continue;
        // Some codecs need what the probe does not know (how keys are turned); their shares are the anchor's then.
        const Result<double> error =
            maybe_probe_->Error(layer, is_key, options_.candidates[static_cast<size_t>(c)].choice, options_.sink_tokens,
                                options_.maybe_calibration);
        if (error.ok()) costs_.SetError(layer, is_key, c, *error);
      }
    }
  }
}

Status Tuner::MeasureTotals() {
  for (int c = 0; c < num_candidates(); ++c) {
    for (const bool is_key : {true, false}) {
      if (IsExact(c) || !Serves(c, is_key)) continue;
      const std::string cache = (is_key ? Uniform(c, exact_) : Uniform(exact_, c)).ToString();
      if (TimeIsUp() && !tuning_->Knows(cache)) continue;  // derived from the probe's errors
      const Result<Measurement> measured = tuning_->Measure(cache);
      if (!measured.ok()) return measured.status();
      costs_.SetTotal(is_key, c, std::max(0.0, measured->kl - floor_));
    }
  }
  return Status::Ok();
}

void Tuner::SayAdditivity() const {
  for (const bool is_key : {true, false}) {
    double sum = 0;
    for (int layer = 0; layer < num_layers(); ++layer) sum += costs_.Profile(layer, is_key);
    const std::optional<double> total = costs_.Total(is_key, costs_.anchor());
    if (!total) continue;
    say_(StrFormat("%s: the layers' costs at the lowest rate sum up to %.5f, all layers together cost %.5f",
                   is_key ? "K" : "V", sum, *total));
  }
}

// ---- solving

// Groups are K of layer 0, V of layer 0, K of layer 1, ...
Result<Tuner::Picks> Tuner::Fit(ChoiceProgram program) const {
  std::vector<Picks> candidates;  // of each option
  const bool costs_are_kl = options_.budget.has_value();
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (const bool is_key : {true, false}) {
      std::vector<Choice>& options = program.groups.emplace_back();
      Picks& own = candidates.emplace_back();
      for (int c = 0; c < num_candidates(); ++c) {
        const std::optional<double> kl = Cost(layer, is_key, c);
        if (!kl) continue;
        const double bytes = bytes_.Bytes(layer, is_key, c);
        options.push_back(costs_are_kl ? Choice{.cost = *kl, .weight = bytes} : Choice{.cost = bytes, .weight = *kl});
        own.push_back(c);
      }
    }
  }
  Result<ChoiceSolution> solution = Solve(program);
  if (!solution.ok()) return solution.status();
  if (!solution->is_optimal) say_("the solver's time limit came first: the plan may not be the best one");
  Picks picks;
  for (size_t i = 0; i < candidates.size(); ++i) {
    picks.push_back(candidates[i][static_cast<size_t>(solution->picks[i])]);
  }
  return picks;
}

// A budget in bytes is met by the largest size on the way to the context, which may be more than the size there.
Result<Tuner::Picks> Tuner::SolveBudget() const {
  const double wanted = options_.budget->LimitBytes(options_.layers, options_.context);
  double limit = wanted;
  for (int round = 0; round < kMaxRounds; ++round) {
    Result<Picks> picks = Fit({.groups = {}, .max_weight = limit});
    if (!picks.ok() || options_.budget->unit != Budget::Unit::kBytes) return picks;
    const Result<CacheCost> cost = CacheCost::Of(SchemeOf(*picks), options_.layers, options_.maybe_calibration);
    if (!cost.ok()) return cost.status();
    const auto peak = static_cast<double>(cost->PeakBytes(options_.context));
    if (peak <= wanted) return picks;
    limit -= peak - wanted;
  }
  return Status::InvalidArgument(
      StrFormat("budget: %.0f bytes are too few for the rows on the way to %lld tokens; give more, or recent=0", wanted,
                static_cast<long long>(options_.context)));
}

Result<Tuner::Picks> Tuner::SolveMaxKl(double max_kl) const {
  return Fit({.groups = {}, .max_weight = std::max(0.0, max_kl - floor_)});
}

// ---- checking

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
  KVANT_TRY(Repair(*picks, first->kl));
  Result<Picks> again = options_.budget ? SolveBudget() : SolveMaxKl(options_.max_kl);
  if (!again.ok()) return again.status();
  const Result<Measurement> second = tuning_->Measure(SchemeOf(*again).ToString());
  if (!second.ok()) return second.status();
  const bool is_better = options_.budget ? second->kl < first->kl : second->kl <= options_.max_kl;
  say_(StrFormat("second pass: predicted %.5f, measured %.5f; %s", Predicted(*again), second->kl,
                 is_better ? "taken" : "the first plan is kept"));
  if (!is_better) return Status::Ok();
  result->is_repaired = *again != *picks;
  result->tuning_kl = second->kl;
  *picks = *again;
  return Status::Ok();
}

// What the plan gains when one layer's K or V is exact, against what that layer was predicted to cost.
Status Tuner::Repair(const Picks& picks, double kl) {
  for (int layer = 0; layer < num_layers(); ++layer) {
    for (const bool is_key : {true, false}) {
      const int candidate = picks[Group(layer, is_key)];
      const double cost = Cost(layer, is_key, candidate).value_or(0);
      if (IsExact(candidate) || cost <= 0) continue;
      Picks without = picks;
      without[Group(layer, is_key)] = exact_;
      const Result<Measurement> rest = tuning_->Measure(SchemeOf(without).ToString());
      if (!rest.ok()) return rest.status();
      costs_.Scale(layer, is_key, std::clamp((kl - rest->kl) / cost, kLeastFactor, kLargestFactor));
    }
  }
  return Status::Ok();
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
    if (options_.budget || measured->kl <= options_.max_kl) return Status::Ok();
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
    say_(StrFormat("best uniform scheme at %.3f bits: KL %.5f; the plan has %.3fx of that", bits, *kl,
                   result->plan.measured.kl / *kl));
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

// ---- the plan

void Tuner::FillPlan(const Picks& picks, TuneResult* result) const {
  Plan& plan = result->plan;
  plan.scheme = SchemeOf(picks);
  plan.predicted_kl = Predicted(picks);
  const double values = static_cast<double>(ValuesPerToken(options_.layers));
  plan.predicted_bits_per_value = 8 * BytesOf(picks) / values / static_cast<double>(options_.context);
  plan.bytes_per_token = 0;
  std::vector<double> errors, kls;
  for (int layer = 0; layer < num_layers(); ++layer) {
    const LayerShape& shape = options_.layers[static_cast<size_t>(layer)];
    for (const bool is_key : {true, false}) {
      plan.bytes_per_token += bytes_.BitsPerValue(layer, is_key, picks[Group(layer, is_key)]) * shape.kv_heads *
                              (is_key ? shape.k_dim : shape.v_dim) / 8;
      for (int c = 0; c < num_candidates(); ++c) {
        const std::optional<double> kl = Cost(layer, is_key, c);
        if (!kl) continue;
        const double error = costs_.Error(layer, is_key, c).value_or(0);
        const bool is_measured = c == costs_.anchor();
        plan.tuning.costs.push_back({.layer = layer,
                                     .is_key = is_key,
                                     .candidate = c,
                                     .kl = *kl,
                                     .bits_per_value = bytes_.BitsPerValue(layer, is_key, c),
                                     .attention_error = error,
                                     .is_measured = is_measured});
        if (!is_measured || error <= 0) continue;
        errors.push_back(error);
        kls.push_back(costs_.Profile(layer, is_key));
      }
    }
  }
  plan.bits_per_value = 8 * plan.bytes_per_token / values;
  plan.tuning.expected_gain = costs_.ExpectedGain();
  plan.tuning.floor_kl = floor_;
  plan.tuning.tokens = tuning_->options().tokens;
  plan.tuning.proxy_rank_correlation = RankCorrelation(errors, kls);
  for (const Candidate& c : options_.candidates) plan.tuning.candidates.push_back(c.name());
}

Result<TuneResult> Tuner::Run() {
  TuneResult result;
  KVANT_TRY(CheckBudget());
  KVANT_TRY(MeasureProfile());
  KVANT_TRY(MeasureFloor());
  ProbeErrors();
  KVANT_TRY(MeasureTotals());
  SayAdditivity();
  Result<Picks> picks = options_.budget ? SolveBudget() : SolveMaxKl(options_.max_kl);
  if (!picks.ok()) return picks.status();
  KVANT_TRY(CheckOnTuningText(&*picks, &result));
  KVANT_TRY(CheckOnOtherText(&*picks, &result));
  FillPlan(*picks, &result);
  KVANT_TRY(CompareWithUniform(&result));
  KVANT_TRY(Validate(&result));
  result.bytes = static_cast<int64_t>(BytesOf(*picks));
  if (options_.budget) result.limit_bytes = options_.budget->LimitBytes(options_.layers, options_.context);
  result.runs = tuning_->num_runs() + check_->num_runs();
  return result;
}

}  // namespace kvant
