// Finds the plan with the least KL divergence in a budget: measure, predict, solve, check, repair.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kvant/plan.h"
#include "tune/attention_probe.h"
#include "tune/budget.h"
#include "tune/candidates.h"
#include "tune/choice_program.h"
#include "tune/cost_table.h"
#include "tune/kl_meter.h"
#include "tune/uniform_frontier.h"

namespace kvant {

struct TunerOptions {
  std::vector<LayerShape> layers;
  std::vector<Candidate> candidates;  ///< of ParseCandidates
  std::optional<Budget> budget;       ///< empty: the smallest plan whose divergence is at most max_kl
  double max_kl = 0;                  ///< nats, on the check's text
  int sink_tokens = 4;
  int recent_tokens = 0;
  int64_t context = 4096;  ///< tokens that the budget is for
  int validation_plans = 0;
  double time_limit_s = 0;  ///< 0: none. What is left out then is said
  uint64_t seed = 1;        ///< of the random plans
  std::shared_ptr<const Calibration> maybe_calibration = nullptr;
};

/// What came out beside the plan.
struct TuneResult {
  Plan plan;                 ///< model, hash and version are for the caller to fill in
  double limit_bytes = 0;    ///< of the budget at options.context; 0: there was none
  int64_t bytes = 0;         ///< of the plan there; at its largest on the way with Budget::Unit::kBytes
  double tuning_kl = 0;      ///< measured on the tuning text, to compare with plan.predicted_kl
  double uniform_kl = 0;     ///< of the best uniform scheme at the plan's measured bits; 0: not known
  int runs = 0;              ///< caches that went through the model, references apart
  bool is_repaired = false;  ///< a second pass changed the plan
};

class Tuner {
 public:
  /// Lines for people as things become known; the expected gain is the first.
  using Say = std::function<void(const std::string& line)>;

  /// `tuning` and `check` measure on different texts and outlive the tuner. Null probe: shares of layers are those of the
  /// anchor at all rates.
  Tuner(const TunerOptions& options, KlMeter* tuning, KlMeter* check, const AttentionProbe* maybe_probe, Say say);

  /// What Run begins with, quick: InvalidArgument when the budget is below the smallest plan, which the message names.
  Status CheckBudget();
  /// Errors: as CheckBudget; InvalidArgument when max_kl cannot be met or the time limit passes before a plan is known;
  /// those of measuring.
  Result<TuneResult> Run();

 private:
  using Picks = std::vector<int>;  ///< [layers, K before V]: index of a candidate

  Status MeasureFloor();
  Status MeasureProfile();
  void ProbeErrors();
  Status MeasureTotals();
  void SayAdditivity() const;
  Result<Picks> SolveBudget() const;
  Result<Picks> SolveMaxKl(double max_kl) const;
  Result<Picks> Fit(ChoiceProgram program) const;
  Status CheckOnTuningText(Picks* picks, TuneResult* result);
  Status Repair(const Picks& picks, const Measurement& whole);
  Status CheckOnOtherText(Picks* picks, TuneResult* result);
  Status CheckBytes(const Measurement& measured) const;
  Status CompareWithUniform(TuneResult* result);
  Status Validate(TuneResult* result);
  void FillPlan(const Picks& picks, TuneResult* result) const;

  static size_t Group(int layer, bool is_key) { return 2 * static_cast<size_t>(layer) + !is_key; }
  int num_layers() const { return static_cast<int>(options_.layers.size()); }
  int num_candidates() const { return static_cast<int>(options_.candidates.size()); }
  bool IsExact(int candidate) const { return options_.candidates[static_cast<size_t>(candidate)].is_exact; }
  bool Serves(int candidate, bool is_key) const {
    return options_.candidates[static_cast<size_t>(candidate)].Serves(is_key);
  }
  /// Nothing: the candidate cannot be used there.
  std::optional<double> Cost(int layer, bool is_key, int candidate) const;
  double Predicted(const Picks& picks) const;
  Scheme SchemeOf(const Picks& picks) const;
  Scheme Uniform(int key, int value) const;
  Scheme WithSinks(const CodecChoice& key, const CodecChoice& value) const;
  /// The divergence with this codec in one layer's K or V and everything else exact.
  Result<double> MeasureOneLayer(int layer, bool is_key, const CodecChoice& choice);
  double BytesOf(const Picks& picks) const;
  std::vector<UniformPoint> PredictedUniforms() const;
  bool TimeIsUp() const;

  const TunerOptions options_;
  KlMeter* const tuning_;
  KlMeter* const check_;
  const AttentionProbe* const maybe_probe_;
  const Say say_;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  const int exact_;  ///< the last candidate
  CandidateCosts bytes_;
  CostTable costs_;
  double floor_ = 0;  ///< divergence of a cache that changes rows by next to nothing
};

}  // namespace kvant
