// A table of text cells, for a terminal, for markdown and for HTML.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kvant {

struct Column {
  std::string header;
  bool right = false;  ///< numbers are aligned to the right
};

/// Rows of cells, UTF-8. REQUIRES: each row has as many cells as there are columns.
class Table {
 public:
  explicit Table(std::vector<Column> columns) : columns_(std::move(columns)) {}
  void AddRow(std::vector<std::string> cells);

  /// Columns padded with blanks, a line of dashes under the header.
  std::string ToText() const;
  /// GitHub's pipe tables; '|' in cells is escaped.
  std::string ToMarkdown() const;
  /// One <table> element; cells are escaped.
  std::string ToHtml() const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<std::string>> rows_;
};

/// `text` with &, <, > and quotes escaped for HTML, and blanks for control characters.
std::string EscapeHtml(std::string_view text);

}  // namespace kvant
