#include "eval/table.h"

#include <algorithm>

#include "base/check.h"

namespace kvant {
namespace {

// Characters of UTF-8 text: every byte but continuation bytes.
size_t Width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string Pad(const std::string& cell, size_t width, bool right) {
  const std::string blanks(width - std::min(width, Width(cell)), ' ');
  return right ? blanks + cell : cell + blanks;
}

std::string EscapePipes(const std::string& cell) {
  std::string escaped;
  for (char c : cell) escaped += c == '|' ? std::string("\\|") : std::string(1, c);
  return escaped;
}

void StripTrailingBlanks(std::string& line) { line.erase(line.find_last_not_of(' ') + 1); }

}  // namespace

void Table::AddRow(std::vector<std::string> cells) {
  KVANT_CHECK(cells.size() == columns_.size());
  rows_.push_back(std::move(cells));
}

std::string Table::ToText() const {
  std::vector<size_t> widths;
  for (size_t c = 0; c < columns_.size(); ++c) {
    widths.push_back(Width(columns_[c].header));
    for (const auto& row : rows_) widths[c] = std::max(widths[c], Width(row[c]));
  }
  std::string text;
  const auto add_line = [&](auto&& cell_of) {
    std::string line;
    for (size_t c = 0; c < columns_.size(); ++c) {
      line += (c ? "  " : "") + Pad(cell_of(c), widths[c], columns_[c].right);
    }
    StripTrailingBlanks(line);
    text += line + "\n";
  };
  add_line([&](size_t c) { return columns_[c].header; });
  add_line([&](size_t c) { return std::string(widths[c], '-'); });
  for (const auto& row : rows_) add_line([&](size_t c) { return row[c]; });
  return text;
}

std::string Table::ToMarkdown() const {
  std::string text = "|";
  for (const Column& column : columns_) text += " " + EscapePipes(column.header) + " |";
  text += "\n|";
  for (const Column& column : columns_) text += column.right ? "---:|" : "---|";
  text += "\n";
  for (const auto& row : rows_) {
    text += "|";
    for (const std::string& cell : row) text += " " + EscapePipes(cell) + " |";
    text += "\n";
  }
  return text;
}

std::string Table::ToHtml() const {
  const auto cell = [&](const char* tag, size_t c, const std::string& content) {
    const std::string open = std::string("<") + tag + (columns_[c].right ? " class=\"number\">" : ">");
    return open + EscapeHtml(content) + "</" + tag + ">";
  };
  std::string html = "<table>\n<thead><tr>";
  for (size_t c = 0; c < columns_.size(); ++c) html += cell("th", c, columns_[c].header);
  html += "</tr></thead>\n<tbody>\n";
  for (const auto& row : rows_) {
    html += "<tr>";
    for (size_t c = 0; c < columns_.size(); ++c) html += cell("td", c, row[c]);
    html += "</tr>\n";
  }
  return html + "</tbody>\n</table>\n";
}

std::string EscapeHtml(std::string_view text) {
  std::string escaped;
  for (char c : text) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        escaped += (c >= 0 && c < ' ') || c == '\x7F' ? ' ' : c;
    }
  }
  return escaped;
}

}  // namespace kvant
