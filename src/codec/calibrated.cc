#include "codec/calibrated.h"

#include <algorithm>
#include <charconv>

namespace kvant {
namespace {

// "3.0" and "3" are one option; what is no number stays as it is.
std::string Shortest(const std::string& text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return text;
  char shortest[32];
  return {shortest, std::to_chars(shortest, shortest + sizeof(shortest), number).ptr};
}

bool IsGiven(const CodecOptions& options, std::string_view name) {
  return std::any_of(options.begin(), options.end(), [&](const auto& option) { return option.first == name; });
}

Status Missing(const Codec& codec, const std::string& key, const Calibration* maybe_calibration, int layer) {
  const char* side = codec.shape().side == Side::kKey ? "K" : "V";
  const std::string where =
      maybe_calibration == nullptr ? "none is given" : maybe_calibration->name() + " has no entry for it";
  return Status::NotFound(StrFormat(
      "codec %s needs a calibration for layer %d %s, and %s; make one: kvant calibrate MODEL --text FILE --codec %s",
      key.c_str(), layer, side, where.c_str(), key.c_str()));
}

}  // namespace

std::string CalibrationKey(const CodecInfo& info, const CodecOptions& options) {
  const OptionReader reader(info, options);
  const bool preset = std::any_of(info.options.begin(), info.options.end(), [&](const OptionInfo& option) {
    return option.is_preset && reader.Get(option.name) != option.default_value;
  });
  std::string key(info.name);
  char separator = ':';
  for (const OptionInfo& option : info.options) {
    if (!option.decides_basis || (preset && !IsGiven(options, option.name))) continue;
    key += separator + std::string(option.name) + "=" + Shortest(reader.Get(option.name));
    separator = ',';
  }
  return key;
}

// Any head size will do: whether a codec has a basis does not depend on it. What is no codec is refused elsewhere.
bool UsesBases(const Scheme& scheme) {
  const auto has_basis = [](const CodecChoice& choice, Side side) {
    const Result<Codec> codec = MakeCodec(choice.name, choice.options, {.side = side, .dim = 128});
    return codec.ok() && codec->state->basis_bytes > 0;
  };
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const CodecChoice& choice : scheme.Choices(side == Side::kKey)) {
      if (has_basis(choice, side)) return true;
    }
  }
  return false;
}

Result<SharedBases> FindBases(const Codec& codec, const CodecOptions& options, const Calibration* maybe_calibration,
                              int layer, int kv_heads) {
  if (codec.state->basis_bytes == 0) return SharedBases();
  const std::string key = CalibrationKey(*codec.info, options);
  const CalibrationEntry* entry =
      maybe_calibration ? maybe_calibration->Find(key, layer, codec.shape().side == Side::kKey) : nullptr;
  if (entry == nullptr) {
    if (codec.state->needs_calibration) return Missing(codec, key, maybe_calibration, layer);
    return SharedBases();
  }
  const int num_bases = codec.state->basis_per_layer ? 1 : kv_heads;
  const size_t bytes = static_cast<size_t>(num_bases) * codec.state->basis_bytes;
  if (entry->num_bases != num_bases || entry->bytes.size() != bytes) {
    return Status::InvalidArgument(
        StrFormat("%s: its entry for layer %d of %s has %d bases of %zu bytes in all, the "
                  "model's cache needs %d of %zu",
                  maybe_calibration->name().c_str(), layer, key.c_str(), entry->num_bases, entry->bytes.size(),
                  num_bases, bytes));
  }
  return std::make_shared<const std::vector<std::byte>>(entry->bytes);
}

}  // namespace kvant
