// What each candidate costs in each layer's K or V, in nats of KL divergence, from far fewer measurements than the table has
// entries.
//
// Measured are, on one text,
//   profile  the divergence with one layer's K or V at one low rate (the anchor) and everything else exact,
//   totals   the divergence with all layers' K (or V) at one candidate and the other side exact,
//   errors   the attention probe's error of every candidate in every layer, without running the model.
// For small errors the divergence is quadratic in them, so a candidate's share of a layer follows from the errors' squares:
//   weight(l, c) = profile(l) (error(l, c) / error(l, anchor))^2
//   cost(l, c)   = total(c) weight(l, c) / sum over layers of weight(., c)
// Costs of different layers and sides add up (decoquant.md, Measured; `kvant tune` checks it each time).
#pragma once

#include <optional>
#include <vector>

namespace kvant {

class CostTable {
 public:
  /// `anchor`: index of the candidate that the profiles are measured with.
  CostTable(int num_layers, int num_candidates, int anchor);

  void SetProfile(int layer, bool is_key, double kl) { Of(is_key).profile[Index(layer)] = kl; }
  void SetTotal(bool is_key, int candidate, double kl) { Of(is_key).totals[Index(candidate)] = kl; }
  /// Relative error of the attention's output; not set: unknown.
  void SetError(int layer, bool is_key, int candidate, double error) {
    Of(is_key).errors[Index(candidate)][Index(layer)] = error;
  }
  /// Multiplies what a layer's K or V costs, for all candidates: a repair after a second pass.
  void Scale(int layer, bool is_key, double factor) { Of(is_key).factors[Index(layer)] *= factor; }

  double Profile(int layer, bool is_key) const { return Of(is_key).profile[Index(layer)]; }
  std::optional<double> Total(bool is_key, int candidate) const { return Of(is_key).totals[Index(candidate)]; }
  std::optional<double> Error(int layer, bool is_key, int candidate) const {
    return Of(is_key).errors[Index(candidate)][Index(layer)];
  }
  /// Nats. Nothing when neither the candidate's total nor its errors are known.
  std::optional<double> Cost(int layer, bool is_key, int candidate) const;
  /// The side's total, measured or predicted.
  std::optional<double> PredictedTotal(bool is_key, int candidate) const;

  /// Geometric over arithmetic mean of all profiles: the share of the uniform scheme's divergence that the best allocation
  /// leaves when log KL falls evenly with the bits. 1: all alike.
  double ExpectedGain() const;
  int num_layers() const { return num_layers_; }
  int num_candidates() const { return num_candidates_; }
  int anchor() const { return anchor_; }

 private:
  struct Side {
    std::vector<double> profile;                             ///< [layers]
    std::vector<double> factors;                             ///< [layers]
    std::vector<std::optional<double>> totals;               ///< [candidates]
    std::vector<std::vector<std::optional<double>>> errors;  ///< [candidates][layers]
  };
  static size_t Index(int i) { return static_cast<size_t>(i); }
  Side& Of(bool is_key) { return is_key ? keys_ : values_; }
  const Side& Of(bool is_key) const { return is_key ? keys_ : values_; }
  std::optional<double> Weight(int layer, bool is_key, int candidate) const;
  bool HasErrors(bool is_key, int candidate) const;

  int num_layers_;
  int num_candidates_;
  int anchor_;
  Side keys_;
  Side values_;
};

}  // namespace kvant
