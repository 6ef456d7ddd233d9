#include "eval/text_lines.h"

namespace kvant {
namespace {

constexpr std::string_view kBlank = " \t\r\n\v\f";

Status CheckObject(const JsonLine& line, const std::string& name, const std::vector<std::string>& required) {
  const auto refuse = [&](const std::string& what) {
    return Status::InvalidArgument(StrFormat("%s, line %d: ", name.c_str(), line.number) + what);
  };
  if (!line.value.is_object()) return refuse("no JSON object; accepted: one object per line");
  for (const std::string& member : required) {
    const auto found = line.value.find(member);
    if (found == line.value.end() || !found->is_string()) return refuse("no text \"" + member + "\"");
  }
  return Status::Ok();
}

}  // namespace

std::string_view TrimEnd(std::string_view text, std::string_view characters) {
  return text.substr(0, text.find_last_not_of(characters) + 1);
}

std::string_view Trim(std::string_view text) {
  text.remove_prefix(std::min(text.size(), text.find_first_not_of(kBlank)));
  return TrimEnd(text, kBlank);
}

std::vector<TextLine> Lines(std::string_view text) {
  std::vector<TextLine> lines;
  for (int number = 1; !text.empty(); ++number) {
    const size_t end = std::min(text.size(), text.find('\n'));
    if (const std::string_view line = Trim(text.substr(0, end)); !line.empty()) lines.push_back({number, line});
    text.remove_prefix(std::min(text.size(), end + 1));
  }
  return lines;
}

Result<std::vector<JsonLine>> ParseJsonLines(std::string_view text, const std::string& name,
                                             const std::vector<std::string>& required) {
  std::vector<JsonLine> values;
  for (const TextLine& line : Lines(text)) {
    values.push_back({line.number, nlohmann::json::parse(line.text, nullptr, /*allow_exceptions=*/false)});
    KVANT_TRY(CheckObject(values.back(), name, required));
  }
  if (values.empty()) return Status::InvalidArgument(name + ": no lines; accepted: one JSON object per line");
  return values;
}

}  // namespace kvant
