#include "kvant/scheme.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <span>

#include "base/join.h"
#include "codec/codec.h"
#include "codec/registry.h"

namespace kvant {
namespace {

constexpr int kMaxSinkTokens = kTokensPerPage;  // they are the head of page 0
constexpr int kMaxRecentTokens = 65536;
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
};

template <typename T>
Status SetOnce(std::string_view name, Result<T> parsed, std::optional<T>& target) {
  if (!parsed.ok()) return parsed.status();
  if (target) return Refuse(Quoted(name) + " is given twice");
  target = std::move(*parsed);
  return Status::Ok();
}

Result<int> ParseTokens(std::string_view word, std::string_view text, int max) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error == std::errc() && end == text.data() + text.size() && value >= 0 && value <= max) return value;
  return Refuse(Quoted(word) + " is not accepted; accepted: 0.." + std::to_string(max) + " tokens");
}

Status ReadAssignment(std::string_view word, Draft& draft) {
  const size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  const std::string_view text = word.substr(equals + 1);
  if (name == "k") return SetOnce("k=", ParseCodec(text), draft.key);
  if (name == "v") return SetOnce("v=", ParseCodec(text), draft.value);
  if (name == "sink") return SetOnce("sink=", ParseTokens(word, text, kMaxSinkTokens), draft.sink_tokens);
  if (name == "recent") return SetOnce("recent=", ParseTokens(word, text, kMaxRecentTokens), draft.recent_tokens);
  return Refuse("unknown word " + Quoted(word) + "; accepted: k=, v=, sink=, recent=");
}

/// A preset or a codec, not name=value. "int:bits=4" is one: its '=' belongs to the codec.
bool IsBase(std::string_view word) {
  const size_t mark = word.find_first_of(":=");
  return mark == std::string_view::npos || word[mark] == ':';
}

Status ReadAssignments(std::span<const std::string_view> words, Draft& draft) {
  for (const std::string_view word : words) {
    if (IsBase(word)) {
      return Refuse(Quoted(word) + " must be the first word; after it come k=, v=, sink= or recent=");
    }
    KVANT_TRY(ReadAssignment(word, draft));
  }
  return Status::Ok();
}

/// The first word when it is a preset or a codec for both sides.
Status ReadBase(std::string_view word, Draft& base) {
  if (const Preset* preset = FindPreset(word)) return ReadAssignments(SplitWords(preset->scheme), base);
  if (FindCodec(word.substr(0, word.find(':'))) == nullptr) {
    return Refuse("unknown word " + Quoted(word) + "; accepted: k=, v=, sink=, recent=, a preset (" + PresetNames() +
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
  KVANT_TRY(CheckSide(*draft.key, Side::kKey));
  KVANT_TRY(CheckSide(*draft.value, Side::kValue));
  const int prescribed =
      std::max(FindCodec(draft.key->name)->recent_tokens, FindCodec(draft.value->name)->recent_tokens);
  Scheme scheme;
  scheme.key = std::move(*draft.key);
  scheme.value = std::move(*draft.value);
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
  return "k=" + key.ToString() + " v=" + value.ToString() + " sink=" + std::to_string(sink_tokens) +
         " recent=" + std::to_string(recent_tokens);
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
