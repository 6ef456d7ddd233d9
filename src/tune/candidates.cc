#include "tune/candidates.h"

#include <algorithm>

#include "codec/codec.h"
#include "codec/registry.h"
#include "eval/cache_cost.h"
#include "page/block_layout.h"

namespace kvant {
namespace {

Result<Candidate> ParseCandidate(std::string text) {
  const bool only_keys = text.starts_with("k="), only_values = text.starts_with("v=");
  if (only_keys || only_values) text.erase(0, 2);
  const CodecInfo* info = FindCodec(text.substr(0, text.find(':')));
  // A side that the codec does not serve gets the exact one, so that the text is a whole scheme.
  const std::string exact = ExactChoice().ToString();
  const bool keys = (info == nullptr || info->keys) && !only_values;
  const bool values = (info == nullptr || info->values) && !only_keys;
  if (!keys && !values)
    return Status::InvalidArgument("codec '" + text + "' does not serve the side that it is given for");
  const Result<Scheme> scheme = Scheme::Parse("k=" + (keys ? text : exact) + " v=" + (values ? text : exact));
  if (!scheme.ok()) return Status::InvalidArgument("codec '" + text + "': " + scheme.status().message());
  return Candidate{.choice = keys ? scheme->key : scheme->value, .keys = keys, .values = values};
}

}  // namespace

int Candidate::recent_tokens() const { return FindCodec(choice.name)->recent_tokens; }

CodecChoice ExactChoice() {
  return {.name = std::string(OpenPageCodec({.side = Side::kKey, .dim = 64}).info->name), .options = {}};
}

CodecChoice DisturbedChoice() { return {.name = ExactChoice().name, .options = {{"type", "bf16"}}}; }

Result<std::vector<Candidate>> ParseCandidates(const std::vector<std::string>& texts) {
  std::vector<Candidate> candidates;
  const Candidate exact = {.choice = ExactChoice(), .is_exact = true};
  for (const std::string& text : texts) {
    Result<Candidate> candidate = ParseCandidate(text);
    if (!candidate.ok()) return candidate.status();
    const auto is_same = [&](const Candidate& c) {
      return c.choice == candidate->choice && c.keys >= candidate->keys && c.values >= candidate->values;
    };
    if (is_same(exact) || std::ranges::any_of(candidates, is_same)) continue;
    candidates.push_back(*std::move(candidate));
  }
  candidates.push_back(exact);
  return candidates;
}

Result<CandidateCosts> CandidateCosts::Of(const std::vector<Candidate>& candidates,
                                          const std::vector<LayerShape>& layers, int sink_tokens, int recent_tokens,
                                          int64_t tokens, std::shared_ptr<const Calibration> maybe_calibration) {
  CandidateCosts costs;
  for (const Candidate& candidate : candidates) {
    const Scheme scheme = {.key = candidate.keys ? candidate.choice : ExactChoice(),
                           .value = candidate.values ? candidate.choice : ExactChoice(),
                           .sink_tokens = sink_tokens,
                           .recent_tokens = recent_tokens};
    const Result<CacheCost> cost = CacheCost::Of(scheme, layers, maybe_calibration);
    if (!cost.ok()) {
      return Status(cost.status().code(), "codec '" + candidate.name() + "': " + cost.status().message());
    }
    std::vector<Entry>& entries = costs.entries_.emplace_back();
    for (int layer = 0; layer < static_cast<int>(layers.size()); ++layer) {
      const LayerShape& shape = layers[static_cast<size_t>(layer)];
      for (const bool is_key : {true, false}) {
        const double values = shape.kv_heads * (is_key ? shape.k_dim : shape.v_dim);
        entries.push_back({.bytes = static_cast<double>(cost->StoreBytes(layer, is_key, tokens)),
                           .bits = 8 * cost->StoreBytesPerToken(layer, is_key) / values});
      }
    }
  }
  return costs;
}

}  // namespace kvant
