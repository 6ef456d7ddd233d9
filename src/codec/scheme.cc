#include "kvant/scheme.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>
#include <utility>

#include "base/join.h"
#include "codec/codec.h"
#include "codec/registry.h"

namespace kvant {
namespace {

constexpr int kMaxSinkTokens = kTokensPerPage;  // they are the head of page 0
constexpr int kMaxRecentTokens = 65536;
constexpr int kMaxLayers = 4096;
constexpr const char* kAcceptedWords = "k=, v=, sink=, recent=, k<layer>=, v<layer>=, layers=";
constexpr std::string_view kSpace = " \t\r\n";

std::string Quoted(std::string_view text) { return "'" + std::string(text) + "'"; }

Status Refuse(std::string_view what) { return Status::InvalidArgument("scheme: " + std::string(what)); }

std::vector<std::string_view> SplitWords(std::string_view text) {
  std::vector<std::string_view> words;
  while (true) {
    text.remove_prefix(std::min(text.find_first_not_of(kSpace), text.size()));
    if (text.empty()) return words;
    words.push_back(text.substr(0, text.find_first_of(kSpace)));
    text.remove_prefix(words.back().size());
  }
}

const Preset* FindPreset(std::string_view name) {
  const auto preset = std::ranges::find(Presets(), name, &Preset::name);
  return preset == Presets().end() ? nullptr : &*preset;
}

// ---- what is accepted, for messages

std::string CodecNames() {
  return Join(AllCodecs(), [](const CodecInfo* info) { return info->name; });
}

std::string PresetNames() {
  return Join(Presets(), [](const Preset& preset) { return preset.name; });
}

std::string OptionNames(const CodecInfo& info) {
  if (info.options.empty()) return "none";
  return Join(info.options, [](const OptionInfo& option) { return option.name; });
}

// ---- one codec: "decoquant:bits=4,gauge=klt"

Status CheckOptions(const CodecInfo& info, const CodecOptions& options) {
  for (size_t i = 0; i < options.size(); ++i) {
    const std::string& name = options[i].first;
    const auto is_name = [&](const auto& option) { return option.first == name; };
    if (std::ranges::find(info.options, name, &OptionInfo::name) == info.options.end()) {
      return Refuse("codec " + std::string(info.name) + " has no option " + Quoted(name) +
                    "; accepted: " + OptionNames(info));
    }
    if (std::any_of(options.begin(), options.begin() + static_cast<std::ptrdiff_t>(i), is_name)) {
      return Refuse("codec " + std::string(info.name) + " has option " + Quoted(name) + " twice");
    }
  }
  return Status::Ok();
}

Result<CodecChoice> ParseCodec(std::string_view text) {
  const size_t colon = text.find(':');
  const std::string_view name = text.substr(0, colon);
  const CodecInfo* info = FindCodec(name);
  if (info == nullptr) return Refuse("unknown codec " + Quoted(name) + "; accepted: " + CodecNames());
  if (colon == std::string_view::npos) return CodecChoice{.name = std::string(name), .options = {}};
  const std::string_view option_text = text.substr(colon + 1);
  if (option_text.empty() || option_text.back() == ',') {
    return Refuse(Quoted(text) + " ends where an option should follow; accepted: " + OptionNames(*info));
  }
  Result<CodecOptions> options = ParseCodecOptions(*info, option_text);
  if (!options.ok()) return options.status();
  KVANT_TRY(CheckOptions(*info, *options));
  return CodecChoice{.name = std::string(name), .options = std::move(*options)};
}

Status CheckSide(const CodecChoice& choice, Side side) {
  const CodecInfo* info = FindCodec(choice.name);
  if (side == Side::kKey ? info->keys : info->values) return Status::Ok();
  return Refuse("codec " + choice.name + " cannot encode " + (side == Side::kKey ? "keys" : "values"));
}

// ---- words

/// What the words given so far say.
struct Draft {
  std::optional<CodecChoice> key;
  std::optional<CodecChoice> value;
  std::optional<int> sink_tokens;
  std::optional<int> recent_tokens;
  std::map<int, CodecChoice> layer_keys;
  std::map<int, CodecChoice> layer_values;
  std::optional<int> num_layers;
};

template <typename T>
Status SetOnce(std::string_view name, Result<T> parsed, std::optional<T>& target) {
  if (!parsed.ok()) return parsed.status();
  if (target) return Refuse(Quoted(name) + " is given twice");
  target = std::move(*parsed);
  return Status::Ok();
}

std::optional<int> ParseInt(std::string_view text, int min, int max) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && value >= min && value <= max ? std::optional(value) : std::nullopt;
}

Result<int> ParseTokens(std::string_view word, std::string_view text, int max) {
  if (const std::optional<int> tokens = ParseInt(text, 0, max)) return *tokens;
  return Refuse(Quoted(word) + " is not accepted; accepted: 0.." + std::to_string(max) + " tokens");
}

Result<int> ParseNumLayers(std::string_view word, std::string_view text) {
  if (const std::optional<int> layers = ParseInt(text, 1, kMaxLayers)) return *layers;
  return Refuse(Quoted(word) + " is not accepted; accepted: 1.." + std::to_string(kMaxLayers) + " layers");
}

/// "k11=..." or "v11=...".
Status ReadLayerCodec(std::string_view word, std::string_view name, std::string_view text, Draft& draft) {
  const std::optional<int> layer = ParseInt(name.substr(1), 0, kMaxLayers - 1);
  if (!layer) {
    return Refuse(Quoted(word) + " names no layer; accepted: 0.." + std::to_string(kMaxLayers - 1) + " behind k or v");
  }
  Result<CodecChoice> codec = ParseCodec(text);
  if (!codec.ok()) return codec.status();
  auto& codecs = name.front() == 'k' ? draft.layer_keys : draft.layer_values;
  if (codecs.emplace(*layer, std::move(*codec)).second) return Status::Ok();
  return Refuse(Quoted(std::string(name) + "=") + " is given twice");
}

bool IsLayerName(std::string_view name) {
  return name.size() > 1 && (name.front() == 'k' || name.front() == 'v') && name[1] >= '0' && name[1] <= '9';
}

Status ReadAssignment(std::string_view word, Draft& draft) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  const std::string_view text = word.substr(equals + 1);
  if (name == "k") return SetOnce("k=", ParseCodec(text), draft.key);
  if (name == "v") return SetOnce("v=", ParseCodec(text), draft.value);
  if (name == "sink") return SetOnce("sink=", ParseTokens(word, text, kMaxSinkTokens), draft.sink_tokens);
  if (name == "recent") return SetOnce("recent=", ParseTokens(word, text, kMaxRecentTokens), draft.recent_tokens);
  if (name == "layers") return SetOnce("layers=", ParseNumLayers(word, text), draft.num_layers);
  if (IsLayerName(name)) return ReadLayerCodec(word, name, text, draft);
  return Refuse("unknown word " + Quoted(word) + "; accepted: " + kAcceptedWords);
}

/// A preset or a codec, not name=value. "int:bits=4" is one: its '=' belongs to the codec.
bool IsBase(std::string_view word) {
  const size_t mark = word.find_first_of(":=");
  return mark == std::string_view::npos || word[mark] == ':';
}

Status ReadAssignments(std::span<const std::string_view> words, Draft& draft) {
  for (const std::string_view word : words) {
    if (IsBase(word)) {
      return Refuse(Quoted(word) + " must be the first word; after it come " + kAcceptedWords);
    }
    KVANT_TRY(ReadAssignment(word, draft));
  }
  return Status::Ok();
}

/// The first word when it is a preset or a codec for both sides.
Status ReadBase(std::string_view word, Draft& base) {
  if (const Preset* preset = FindPreset(word)) return ReadAssignments(SplitWords(preset->scheme), base);
  if (FindCodec(word.substr(0, word.find(':'))) == nullptr) {
    return Refuse("unknown word " + Quoted(word) + "; accepted: " + kAcceptedWords + ", a preset (" + PresetNames() +
                  ") or a codec (" + CodecNames() + ")");
  }
  Result<CodecChoice> codec = ParseCodec(word);
  if (!codec.ok()) return codec.status();
  base.key = base.value = std::move(*codec);
  return Status::Ok();
}

Result<Scheme> Finish(Draft draft, Draft base) {
  if (!draft.key) draft.key = std::move(base.key);
  if (!draft.value) draft.value = std::move(base.value);
  if (!draft.sink_tokens) draft.sink_tokens = base.sink_tokens;
  if (!draft.recent_tokens) draft.recent_tokens = base.recent_tokens;
  if (!draft.key) return Refuse("no codec for keys; add k=<codec>, one of " + CodecNames());
  if (!draft.value) return Refuse("no codec for values; add v=<codec>, one of " + CodecNames());
  Scheme scheme;
  scheme.key = std::move(*draft.key);
  scheme.value = std::move(*draft.value);
  scheme.layer_keys = std::move(draft.layer_keys);
  scheme.layer_values = std::move(draft.layer_values);
  scheme.num_layers = draft.num_layers.value_or(0);
  int prescribed = 0;
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const CodecChoice& choice : scheme.Choices(side == Side::kKey)) {
      KVANT_TRY(CheckSide(choice, side));
      prescribed = std::max(prescribed, FindCodec(choice.name)->recent_tokens);
    }
  }
  if (scheme.num_layers != 0) KVANT_TRY(scheme.CheckLayers(scheme.num_layers));
  scheme.sink_tokens = draft.sink_tokens.value_or(scheme.sink_tokens);
  scheme.recent_tokens = draft.recent_tokens.value_or(prescribed);
  return scheme;
}

}  // namespace

std::string CodecChoice::ToString() const {
  std::string text = name;
  for (size_t i = 0; i < options.size(); ++i) {
    text += (i == 0 ? ":" : ",") + options[i].first + "=" + options[i].second;
  }
  return text;
}

Result<Scheme> Scheme::Parse(std::string_view text) {
  const std::vector<std::string_view> words = SplitWords(text);
  if (words.empty()) return Refuse("empty; give a preset (" + PresetNames() + ") or k=<codec> v=<codec>");
  Draft base;
  const bool has_base = IsBase(words.front());
  if (has_base) KVANT_TRY(ReadBase(words.front(), base));
  Draft draft;
  KVANT_TRY(ReadAssignments(std::span(words).subspan(has_base ? 1 : 0), draft));
  return Finish(std::move(draft), std::move(base));
}

std::string Scheme::ToString() const {
  std::string text = "k=" + key.ToString() + " v=" + value.ToString() + " sink=" + std::to_string(sink_tokens) +
                     " recent=" + std::to_string(recent_tokens);
  for (const auto& [layer, choice] : layer_keys) text += " k" + std::to_string(layer) + "=" + choice.ToString();
  for (const auto& [layer, choice] : layer_values) text += " v" + std::to_string(layer) + "=" + choice.ToString();
  return num_layers == 0 ? text : text + " layers=" + std::to_string(num_layers);
}

// ---- layers

const CodecChoice& Scheme::Choice(int layer, bool is_key) const {
  const auto& layers = is_key ? layer_keys : layer_values;
  const auto own = layers.find(layer);
  if (own != layers.end()) return own->second;
  return is_key ? key : value;
}

std::vector<CodecChoice> Scheme::Choices(bool is_key) const {
  std::vector<CodecChoice> choices;
  const auto& layers = is_key ? layer_keys : layer_values;
  // The common one, unless every layer has its own.
  if (num_layers == 0 || std::cmp_less(layers.size(), num_layers)) choices.push_back(is_key ? key : value);
  for (const auto& [layer, choice] : layers) {
    if (std::ranges::find(choices, choice) == choices.end()) choices.push_back(choice);
  }
  return choices;
}

Status Scheme::CheckLayers(int model_layers) const {
  if (num_layers != 0 && num_layers != model_layers) {
    return Refuse("made for a model with " + std::to_string(num_layers) + " layers; this one has " +
                  std::to_string(model_layers));
  }
  for (const auto* layers : {&layer_keys, &layer_values}) {
    if (layers->empty() || layers->rbegin()->first < model_layers) continue;
    return Refuse(Quoted((layers == &layer_keys ? "k" : "v") + std::to_string(layers->rbegin()->first) + "=") +
                  " names a layer that the model does not have; accepted: 0.." + std::to_string(model_layers - 1));
  }
  return Status::Ok();
}

namespace {

// The first of equals.
CodecChoice MostFrequent(const std::vector<LayerCodecs>& layers, CodecChoice LayerCodecs::*side) {
  const auto count = [&](const LayerCodecs& l) { return std::ranges::count(layers, l.*side, side); };
  return (*std::ranges::max_element(layers, {}, count)).*side;
}

}  // namespace

Scheme Scheme::OfLayers(const std::vector<LayerCodecs>& layers, int sink_tokens, int recent_tokens) {
  Scheme scheme{.key = MostFrequent(layers, &LayerCodecs::key),
                .value = MostFrequent(layers, &LayerCodecs::value),
                .sink_tokens = sink_tokens,
                .recent_tokens = recent_tokens,
                .num_layers = static_cast<int>(layers.size())};
  for (int layer = 0; layer < scheme.num_layers; ++layer) {
    const LayerCodecs& own = layers[static_cast<size_t>(layer)];
    if (own.key != scheme.key) scheme.layer_keys.emplace(layer, own.key);
    if (own.value != scheme.value) scheme.layer_values.emplace(layer, own.value);
  }
  return scheme;
}

const std::vector<Preset>& Presets() {
  static const std::vector<Preset> presets = {
      {"kv8", "k=int:8 v=int:8", "8 bits: as good as fp16"},
      {"kv4", "k=decoquant:bits=4 v=decoquant:bits=4", "4 bits: the usual choice"},
      {"kv3", "k=decoquant:bits=3,code=trellis v=decoquant:bits=3,code=trellis", "3 bits: long contexts"},
      {"kv2", "k=decoquant:bits=2,code=trellis v=decoquant:bits=2,code=trellis", "2 bits: the smallest"},
  };
  return presets;
}

}  // namespace kvant
