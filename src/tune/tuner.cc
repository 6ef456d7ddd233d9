#include "tune/tuner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/check.h"
#include "eval/cache_cost.h"
#include "tune/rank_correlation.h"

namespace kvant {
namespace {

/// The anchor's rate: low, so that one layer's divergence stands out of the noise of rounding, and near those of plans.
constexpr double kAnchorBits = 1.25;
/// Times that a limit is drawn in until the peak of the bytes meets it.
constexpr int kMaxRounds = 4;
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
  if (options_.budget && options_.budget->unit == Budget::Unit::kBytes) {
    const Result<CacheCost> cost = CacheCost::Of(result.plan.scheme, options_.layers, options_.maybe_calibration);
    if (!cost.ok()) return cost.status();
    result.bytes = static_cast<int64_t>(cost->PeakBytes(options_.context));
  }
  if (options_.budget) result.limit_bytes = options_.budget->LimitBytes(options_.layers, options_.context);
  result.runs = tuning_->num_runs() + check_->num_runs();
  return result;
}

}  // namespace kvant
