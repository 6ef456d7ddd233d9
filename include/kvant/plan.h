// A plan: which codec each layer's K and V get, fitted to one model by `kvant tune`, with what was measured on the way.
//
// A plan file is JSON (docs/tuning.md) and is accepted wherever scheme text is: the path of a file that ends in ".json"
// stands for the plan's scheme. Sinks and the recent window are one for all layers, because pages seal together.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kvant/scheme.h"
#include "kvant/status.h"

namespace kvant {

/// What an evaluation of the whole plan, or of another cache, gave against fp16.
struct PlanQuality {
  std::string text;           ///< file name without its folder
  int64_t tokens = 0;         ///< read from it; 0: nothing was measured
  double kl = 0;              ///< nats per position
  double kl_stderr = 0;       ///< standard error of `kl`
  double bits_per_value = 0;  ///< measured: everything that the cache held, per value
};

/// One scheme for all layers, beside which the plan has to stand.
struct PlanUniform {
  std::string cache;  ///< scheme text or preset
  double kl = 0;
  double bits_per_value = 0;
};

/// What one candidate costs in one layer's K or V, all other layers exact.
struct PlanCost {
  int layer = 0;
  bool is_key = true;
  int candidate = 0;           ///< index into PlanTuning::candidates
  double kl = 0;               ///< nats per position that it adds
  double bits_per_value = 0;   ///< of sealed pages, everything in a block counted
  double attention_error = 0;  ///< relative error of the layer's attention output; 0: not measured
  bool is_measured = true;     ///< false: derived from another candidate's KL and the errors of both
};

/// Predicted and measured divergence of a plan drawn at random.
struct PlanValidation {
  double predicted_kl = 0;
  double measured_kl = 0;
};

/// How the plan came about.
struct PlanTuning {
  std::string text;                     ///< file name of the text that the costs were measured on
  int64_t tokens = 0;                   ///< read from it
  double expected_gain = 0;             ///< geometric over arithmetic mean of the costs at equal rates; 0: unknown
  /// Divergence of a cache that changes rows by next to nothing, which every plan has beside its costs.
  double floor_kl = 0;
  std::vector<std::string> candidates;  ///< codec texts: "int:bits=8"
  std::vector<PlanCost> costs;
  double proxy_rank_correlation = 0;  ///< of attention_error with kl, over the measured costs
  std::vector<PlanValidation> validation;
  double validation_rank_correlation = 0;
};

/// Immutable once read; a value.
struct Plan {
  std::string kvant_version;
  std::string model;           ///< file name, for people
  std::string model_hash;      ///< Runner::HashModel: the model that it is for
  Scheme scheme;               ///< with the codecs of each layer and num_layers set
  double bits_per_value = 0;   ///< of sealed pages
  double bytes_per_token = 0;  ///< the same, over all layers
  PlanQuality measured;        ///< on text that was not used for tuning
  double predicted_kl = 0;     ///< sum of the costs
  double predicted_bits_per_value = 0;
  std::vector<PlanUniform> uniform;
  PlanTuning tuning;

  /// Reads and checks a file. Errors, in one line that names it: NotFound, IoError, Corruption (no JSON, no plan, a scheme
  /// line that does not parse), NotSupported (another format version).
  static Result<Plan> Load(const std::string& path);
  /// The same from text; `name` is what messages call it.
  static Result<Plan> Parse(std::string_view json, const std::string& name);
  /// The bytes of the file.
  std::string Serialize() const;

  /// The scheme as text, which does everything that the file does but does not know its model.
  std::string ToString() const { return scheme.ToString(); }
  /// The codecs of all layers, in order.
  std::vector<LayerCodecs> Layers() const;
  /// InvalidArgument, with both hashes, unless it was made for the model with this hash. `name` as in Parse.
  Status CheckModel(const std::string& hash, const std::string& name) const;
};

/// Does `cache` name a plan file instead of being scheme text?
bool IsPlanPath(std::string_view cache);

/// The scheme of a plan file, or of scheme text. That the plan is of the model at hand is not checked; the number of
/// layers is, when a cache is made. Errors: those of Plan::Load and Scheme::Parse.
Result<Scheme> ReadScheme(std::string_view cache);

}  // namespace kvant
