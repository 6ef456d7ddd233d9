// A scheme: which codec encodes K, which V, and what stays exact.
#pragma once

#include <map>
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
  bool operator==(const CodecChoice&) const = default;
};

/// The codecs of one layer.
struct LayerCodecs {
  CodecChoice key;
  CodecChoice value;
};

/// Text form, the same in CLI, environment, API and plan files:
///   k=decoquant:bits=4 v=kivi:bits=2,group=32 sink=4 recent=128
/// One word without '=' before it is a preset ("kv4"), or a codec for both sides ("int:4"); later words override it.
/// Single layers may differ: "kv3 k0=decoquant:4 v11=int:8" codes the keys of layer 0 and the values of layer 11 in another
/// way; layers=12 says that the scheme is for models with 12 layers only.
struct Scheme {
  CodecChoice key;
  CodecChoice value;
  int sink_tokens = 4;    ///< first rows of a sequence that stay exact, 0..64
  int recent_tokens = 0;  ///< newest rows that are not sealed yet, beside the open page; 0..65536
  /// Codecs of single layers, by layer, in the place of `key` and `value`.
  std::map<int, CodecChoice> layer_keys = {};
  std::map<int, CodecChoice> layer_values = {};
  int num_layers = 0;  ///< of the models that it is for; 0: all that have the layers above

  const CodecChoice& Choice(int layer, bool is_key) const;
  /// Every codec that some layer uses for this side, each once.
  std::vector<CodecChoice> Choices(bool is_key) const;
  /// InvalidArgument unless the scheme is for a model with `model_layers` layers.
  Status CheckLayers(int model_layers) const;

  /// For models with exactly these layers; the most frequent codecs become `key` and `value`.
  /// REQUIRES: !layers.empty()
  static Scheme OfLayers(const std::vector<LayerCodecs>& layers, int sink_tokens, int recent_tokens);

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
