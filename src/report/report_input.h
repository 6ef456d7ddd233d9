// What a report is made from: the JSON of `kvant eval` and `kvant tune`, read with patience. Each key may be absent.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "kvant/status.h"

namespace kvant {

using MaybeNumber = std::optional<double>;  ///< finite

/// Answers to a task: `right` of `asked`, with the 95 % interval of their share.
struct TaskScore {
  std::string task = {};
  double right = 0;
  double asked = 0;
  MaybeNumber low = {};
  MaybeNumber high = {};
};

/// Right answers by length of the text and depth of the needle.
struct NeedleGrid {
  std::vector<double> lengths = {};                         ///< tokens
  std::vector<double> depths = {};                          ///< 0..1
  std::vector<std::vector<double>> right = {}, asked = {};  ///< [lengths][depths], checked
};

struct ContextSpeed {
  double tokens = 0;
  MaybeNumber decode_ms = {};
  MaybeNumber prefill_tokens_per_s = {};
};

/// One cache of an evaluation.
struct EvalRow {
  std::string cache = {}, scheme = {}, bases = {};
  MaybeNumber bits = {}, cache_bytes = {};
  std::vector<std::pair<std::string, double>> bits_by_kind = {};
  MaybeNumber kl = {}, kl_low = {}, kl_high = {}, kl_p99 = {}, top1 = {}, perplexity = {}, needles_right = {};
  MaybeNumber prefill_tokens_per_s = {}, decode_ms = {}, encode_share = {}, process_bytes = {};
  double window = 0;  ///< tokens of each number in kl_by_position
  std::vector<double> kl_by_position = {};
  std::vector<double> attention_error_by_layer = {};
  std::optional<NeedleGrid> needle_grid = {};
  std::vector<TaskScore> scores = {};
  MaybeNumber drift_tokens = {}, drift_first_difference = {}, drift_agreement = {}, context_shift_kl = {};
  std::vector<ContextSpeed> speed = {};
};

/// Name and value of what a run depended on, for people: {"text", "typee.txt"}.
using Facts = std::vector<std::pair<std::string, std::string>>;

struct EvalInput {
  std::string name = {};  ///< what the page calls it
  std::string model = {}, model_hash = {}, text = {};
  MaybeNumber skip = {};
  MaybeNumber needles = {};
  std::vector<EvalRow> rows = {};
  Facts facts = {};
};

/// A codec of a plan, for one layer's K or V.
struct PlanChoice {
  std::string codec = {};
  MaybeNumber bits = {};  ///< per value, from the costs; else by the codec's name
};

struct PlanLayer {
  PlanChoice key = {}, value = {};
};

/// A cache with its measured divergence.
struct MeasuredCache {
  std::string cache = {};
  MaybeNumber bits = {}, kl = {}, kl_stderr = {};
};

struct PlanInput {
  std::string name = {};
  std::string model = {}, model_hash = {};
  std::vector<PlanLayer> layers = {};
  MeasuredCache measured = {};
  MaybeNumber predicted_kl = {}, expected_gain = {}, proxy_rank_correlation = {}, validation_rank_correlation = {};
  std::vector<MeasuredCache> uniform = {};
  std::vector<std::pair<double, double>> validation = {};  ///< predicted, measured KL
  Facts facts = {};
};

using ReportInput = std::variant<EvalInput, PlanInput>;

/// `name` is what messages and the page call the file. Errors, in one line that names it: Corruption (no JSON, no file of
/// kvant eval or kvant tune), NotSupported (of a later format version).
Result<ReportInput> ParseReportInput(std::string_view json, const std::string& name);

}  // namespace kvant
