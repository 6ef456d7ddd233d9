// Needles: short facts hidden in a long text, and the questions that only they answer.
//
// The sentences are those that the demo model was trained on; other models understand them as well.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kvant/status.h"
#include "llama/runner.h"

namespace kvant {

struct Needle {
  std::string statement;  ///< "The secret number of Kalo is 48213."
  std::string question;   ///< "Question: What is the secret number of Kalo? Answer:"
  std::string answer;     ///< "48213"
};

/// `count` needles with different names. The same seed gives the same needles on every machine.
std::vector<Needle> MakeNeedles(int count, uint64_t seed);

/// Depths of `count` needles spread evenly over a text: 0 is its start, 1 its end.
std::vector<double> EvenDepths(int count);

/// BOS and `text`, cut to exactly `total` tokens after every needle is inserted at its depth.
/// `depths` [needles.size()] ascending in 0..1. `text_name` is what messages call the text.
/// Errors: InvalidArgument when the text is shorter than that (with both numbers) or the needles fill more
/// than half.
Result<std::vector<int>> HideNeedles(const Runner& runner, std::string_view text, std::string_view text_name,
                                     std::span<const Needle> needles, std::span<const double> depths, int total);

/// Context that asking a needle may take beside the text, also where a token is a byte.
constexpr int kNeedleReserveTokens = 96;

/// Asks after the tokens that `runner` holds, by greedy decoding, and returns what stands there before the
/// first character that is no digit, leading white space skipped. The runner ends as it was, without the
/// logits.
Result<std::string> AskNeedle(Runner& runner, const Needle& needle);

/// Number of needles whose answer is exact.
Result<int> CountNeedles(Runner& runner, std::span<const Needle> needles);

}  // namespace kvant
