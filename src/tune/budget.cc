#include "tune/budget.h"

#include <array>
#include <charconv>
#include <cmath>
#include <optional>
#include <string>
#include <utility>

namespace kvant {
namespace {

constexpr const char* kForms = "3 or 3bits (bits per value), 512B (bytes per token), '64K in 2GiB' (context in memory)";

struct Suffix {
  std::string_view text;
  double factor;
};
constexpr std::array<Suffix, 10> kSuffixes = {{{"KiB", 0x1p10},
                                               {"MiB", 0x1p20},
                                               {"GiB", 0x1p30},
                                               {"KB", 1e3},
                                               {"MB", 1e6},
                                               {"GB", 1e9},
                                               {"K", 0x1p10},
                                               {"M", 0x1p20},
                                               {"G", 0x1p30},
                                               {"B", 1}}};

Status Refuse(std::string_view text) {
  return Status::InvalidArgument("budget '" + std::string(text) + "' is not accepted; accepted: " + kForms);
}

std::optional<double> Positive(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  return whole && std::isfinite(value) && value > 0 ? std::optional(value) : std::nullopt;
}

// "64K", "2GiB", "4096".
std::optional<double> WithSuffix(std::string_view text) {
  for (const auto& [suffix, factor] : kSuffixes) {
    if (!text.ends_with(suffix)) continue;
    const std::optional<double> number = Positive(text.substr(0, text.size() - suffix.size()));
    return number ? std::optional(*number * factor) : std::nullopt;
  }
  return Positive(text);
}

constexpr std::string_view kIn = " in ";
constexpr double kMaxContext = 0x1p40;

}  // namespace

Result<Budget> Budget::Parse(std::string_view text) {
  if (const size_t in = text.find(kIn); in != std::string_view::npos) {
    const std::optional<double> tokens = WithSuffix(text.substr(0, in));
    const std::optional<double> bytes = WithSuffix(text.substr(in + kIn.size()));
    if (!tokens || !bytes || *tokens < 1 || *tokens > kMaxContext) return Refuse(text);
    return Budget{.unit = Unit::kBytes, .amount = *bytes, .context = static_cast<int64_t>(*tokens)};
  }
  if (text.ends_with("B")) {
    const std::optional<double> bytes = WithSuffix(text);
    if (!bytes) return Refuse(text);
    return Budget{.unit = Unit::kBytesPerToken, .amount = *bytes};
  }
  std::string_view number = text;
  for (const std::string_view word : {"bits", "bit"}) {
    if (number.ends_with(word)) {
      number.remove_suffix(word.size());
      break;
    }
  }
  while (number.ends_with(' ')) number.remove_suffix(1);
  const std::optional<double> bits = Positive(number);
  if (!bits) return Refuse(text);
  return Budget{.unit = Unit::kBitsPerValue, .amount = *bits};
}

double Budget::LimitBytes(const std::vector<LayerShape>& layers, int64_t tokens) const {
  switch (unit) {
    case Unit::kBitsPerValue:
      return amount * static_cast<double>(ValuesPerToken(layers)) * static_cast<double>(tokens) / 8;
    case Unit::kBytesPerToken:
      return amount * static_cast<double>(tokens);
    case Unit::kBytes:
      break;
  }
  return amount;
}

int64_t ValuesPerToken(const std::vector<LayerShape>& layers) {
  int64_t values = 0;
  for (const LayerShape& l : layers) values += int64_t{l.kv_heads} * (l.k_dim + l.v_dim);
  return values;
}

}  // namespace kvant
