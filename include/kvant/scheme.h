// A scheme: which codec encodes K, which V, and what stays exact.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "kvant/status.h"

namespace kvant {

/// A codec's name and options as written, not yet checked against a model.
struct CodecChoice {
  std::string name;                                          ///< "decoquant"
  std::vector<std::pair<std::string, std::string>> options;  ///< {"bits", "4"}, in the order of the text

  std::string ToString() const;  ///< "decoquant:bits=4"
};

/// Text form, the same in CLI, environment, API and plan files:
///   k=decoquant:bits=4 v=kivi:bits=2,group=32 sink=4 recent=128
/// One word without '=' before it is a preset ("kv4"), or a codec for both sides ("int:4"); later words override it.
struct Scheme {
  CodecChoice key;
  CodecChoice value;
  int sink_tokens = 4;    ///< first rows of a sequence that stay exact, 0..64
  int recent_tokens = 0;  ///< newest rows that are not sealed yet, beside the open page; 0..65536

  /// Errors: InvalidArgument naming the word and what is accepted. Codec names and option names are checked; values
  /// are when a cache is made for a model.
  static Result<Scheme> Parse(std::string_view text);
  std::string ToString() const;  ///< parses back to the same scheme
};

/// A named scheme for people who do not want to choose.
struct Preset {
  std::string_view name;    ///< "kv4"
  std::string_view scheme;  ///< its text
  std::string_view summary;
};
const std::vector<Preset>& Presets();

}  // namespace kvant
