// The codecs that a plan is made of.
#pragma once

#include <string>
#include <vector>

#include "kvant/calibration.h"
#include "kvant/scheme.h"
#include "kvant/shape.h"

namespace kvant {

/// One configuration of a codec, and what it takes in each layer of a model.
struct Candidate {
  CodecChoice choice;
  bool keys = true;  ///< it can encode keys
  bool values = true;
  bool is_exact = false;  ///< 16 bits: what open pages hold; costs no quality

  bool Serves(bool is_key) const { return is_key ? keys : values; }
  std::string name() const { return choice.ToString(); }
  int recent_tokens() const;  ///< that its method prescribes
};

/// Codec texts ("int:8"; "k=int:8", "v=int:8": for one side) to candidates, each once and with the exact one last. Errors: InvalidArgument naming the text.
Result<std::vector<Candidate>> ParseCandidates(const std::vector<std::string>& texts);

/// The codec of exact rows.
CodecChoice ExactChoice();
/// The least change of rows that is one: bf16. What it costs is not the codec's error, which is nothing, but that of a
/// computation that was disturbed at all.
CodecChoice DisturbedChoice();

/// Bytes that candidates take, by layer and side.
class CandidateCosts {
 public:
  /// `tokens`: of the cache that is accounted for. `sink_tokens` and `recent_tokens` as in Scheme. Errors: those of
  /// CacheCost::Of, naming the candidate.
  static Result<CandidateCosts> Of(const std::vector<Candidate>& candidates, const std::vector<LayerShape>& layers,
                                   int sink_tokens, int recent_tokens, int64_t tokens,
                                   std::shared_ptr<const Calibration> maybe_calibration);

  /// Held at `tokens` tokens, sinks, bases and exact rows included. REQUIRES: the candidate serves the side
  double Bytes(int layer, bool is_key, int candidate) const { return At(layer, is_key, candidate).bytes; }
  /// Of sealed pages.
  double BitsPerValue(int layer, bool is_key, int candidate) const { return At(layer, is_key, candidate).bits; }

 private:
  struct Entry {
    double bytes = 0;
    double bits = 0;
  };
  const Entry& At(int layer, bool is_key, int candidate) const {
    return entries_[static_cast<size_t>(candidate)][2 * static_cast<size_t>(layer) + !is_key];
  }
  std::vector<std::vector<Entry>> entries_;  ///< [candidates][layers, K before V]
};

}  // namespace kvant
