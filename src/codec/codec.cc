#include "codec/codec.h"

#include <charconv>
#include <cmath>

#include "base/check.h"
#include "base/join.h"
#include "codec/registry.h"

namespace kvant {
namespace {

const OptionInfo* FindOption(const CodecInfo& info, std::string_view name) {
  for (const OptionInfo& option : info.options) {
    if (option.name == name) return &option;
  }
  return nullptr;
}

bool ParseNumber(const std::string& text, double* value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *value);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(*value);
}

std::string CodecText(const CodecInfo& info, bool serves_side, std::string_view options) {
  if (!serves_side) return "raw";
  return std::string(info.name) + (options.empty() ? "" : ":") + std::string(options);
}

}  // namespace

const CodecInfo* FindCodec(std::string_view name) {
  for (const CodecInfo* info : AllCodecs()) {
    if (info->name == name) return info;
  }
  return nullptr;
}

std::vector<std::string> TypicalSchemes() {
  static constexpr CodecPair kDefaults[] = {{"", ""}};
  std::vector<std::string> schemes;
  for (const CodecInfo* info : AllCodecs()) {
    for (const CodecPair& pair : info->typical.empty() ? std::span<const CodecPair>(kDefaults) : info->typical) {
      const std::string key = CodecText(*info, info->keys, pair.key_options);
      const std::string value = CodecText(*info, info->values, pair.value_options);
      schemes.push_back(key == value ? key : "k=" + key + " v=" + value);
    }
  }
  return schemes;
}

Result<CodecOptions> ParseCodecOptions(const CodecInfo& info, std::string_view text) {
  CodecOptions options;
  while (!text.empty()) {
    const std::string_view item = text.substr(0, text.find(','));
    text.remove_prefix(std::min(text.size(), item.size() + 1));
    const size_t equals = item.find('=');
    const bool named = equals != std::string_view::npos;
    if (!named && (!options.empty() || info.options.empty())) {
      return Status::InvalidArgument(StrFormat("codec %s: '%s' is not of the form option=value",
                                               std::string(info.name).c_str(), std::string(item).c_str()));
    }
    options.emplace_back(named ? item.substr(0, equals) : info.options.front().name,
                         named ? item.substr(equals + 1) : item);
  }
  return options;
}

Result<Codec> MakeCodec(std::string_view name, const CodecOptions& options, const BlockShape& shape,
                        Implementation implementation) {
  const CodecInfo* info = FindCodec(name);
  if (info == nullptr) {
    return Status::InvalidArgument(StrFormat("unknown codec '%s'; accepted: %s", std::string(name).c_str(),
                                             Join(AllCodecs(), [](const CodecInfo* c) { return c->name; }).c_str()));
  }
  for (const auto& [option, value] : options) {
    if (FindOption(*info, option) != nullptr) continue;
    return Status::InvalidArgument(StrFormat("codec %s: unknown option '%s'; accepted: %s", std::string(name).c_str(),
                                             option.c_str(),
                                             Join(info->options, [](const OptionInfo& o) { return o.name; }).c_str()));
  }
  if (shape.side == Side::kKey ? !info->keys : !info->values) {
    return Status::NotSupported(StrFormat("codec %s cannot encode %s", std::string(name).c_str(),
                                          shape.side == Side::kKey ? "keys" : "values"));
  }
  if (shape.dim < 16 || shape.dim > 256 || shape.dim % 16 != 0) {
    return Status::NotSupported(
        StrFormat("head size %d is not supported; accepted: multiples of 16 up to 256", shape.dim));
  }
  auto state = info->make(shape, options);
  if (!state.ok()) return state.status();
  Codec codec{.info = info, .state = std::move(*state), .verbs = info->reference};
  if (implementation == Implementation::kBest && info->simd != nullptr) {
    const CodecVerbs& simd = *info->simd();
    if (simd.encode) codec.verbs.encode = simd.encode;
    if (simd.decode) codec.verbs.decode = simd.decode;
    if (simd.prepare_query) codec.verbs.prepare_query = simd.prepare_query;
    if (simd.score) codec.verbs.score = simd.score;
    if (simd.accumulate) codec.verbs.accumulate = simd.accumulate;
    if (simd.finish) codec.verbs.finish = simd.finish;
  }
  return codec;
}

Codec OpenPageCodec(const BlockShape& shape) {
  Result<Codec> codec = MakeCodec("raw", {{"type", "fp16"}}, shape);
  KVANT_CHECK(codec.ok());
  return *std::move(codec);
}

std::string OptionReader::Get(std::string_view name) const {
  for (const auto& [option, value] : options_) {
    if (option == name) return value;
  }
  const OptionInfo* info = FindOption(info_, name);
  KVANT_CHECK(info != nullptr);
  return std::string(info->default_value);
}

Status OptionReader::Refuse(std::string_view name, std::string_view why) const {
  const OptionInfo* info = FindOption(info_, name);
  KVANT_CHECK(info != nullptr);
  return Status::InvalidArgument(StrFormat(
      "codec %s: %s=%s is not accepted%s%s; accepted: %s", std::string(info_.name).c_str(), std::string(name).c_str(),
      Get(name).c_str(), why.empty() ? "" : " ", std::string(why).c_str(), std::string(info->accepted).c_str()));
}

Result<double> OptionReader::GetNumber(std::string_view name, double min, double max, double step) const {
  double value = 0;
  if (!ParseNumber(Get(name), &value) || value < min || value > max) return Refuse(name, "");
  if (std::abs(value / step - std::round(value / step)) > 1e-9) return Refuse(name, "");
  return value;
}

Result<int> OptionReader::GetIntRange(std::string_view name, int min, int max) const {
  const Result<double> value = GetNumber(name, min, max, 1.0);
  if (!value.ok()) return value.status();
  return static_cast<int>(*value);
}

Result<int> OptionReader::GetInt(std::string_view name, std::span<const int> allowed) const {
  double value = 0;
  if (ParseNumber(Get(name), &value)) {
    for (int a : allowed) {
      if (value == a) return a;
    }
  }
  return Refuse(name, "");
}

Result<int> OptionReader::GetChoice(std::string_view name, std::span<const std::string_view> allowed) const {
  const std::string value = Get(name);
  for (size_t i = 0; i < allowed.size(); ++i) {
    if (value == allowed[i]) return static_cast<int>(i);
  }
  return Refuse(name, "");
}

}  // namespace kvant
