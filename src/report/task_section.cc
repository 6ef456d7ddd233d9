#include <algorithm>

#include "report/heat_map.h"
#include "report/report_sections.h"

namespace kvant {
namespace {

HeatMap NeedleMap(const std::string& cache, const NeedleGrid& grid) {
  HeatMap map{.label = "Needles found with " + cache, .x_name = "tokens", .y_name = "depth"};
  for (const double length : grid.lengths) map.columns.push_back(ShortNumber(length));
  for (size_t d = 0; d < grid.depths.size(); ++d) {
    map.rows.push_back(StrFormat("%.0f %%", 100 * grid.depths[d]));
    std::vector<HeatCell> cells;
    for (size_t l = 0; l < grid.lengths.size(); ++l) {
      const double right = grid.right[l][d], asked = grid.asked[l][d];
      HeatCell cell{.text = "-"};
      if (asked > 0) {
        cell.text = StrFormat("%.0f/%.0f", right, asked);
        cell.share = right / asked;
      }
      cell.tip = map.columns[l] + " tokens, depth " + map.rows[d] + ": " + cell.text;
      cells.push_back(std::move(cell));
    }
    map.cells.push_back(std::move(cells));
  }
  return map;
}

std::string NeedleGrids(const EvalInput& eval) {
  std::string html;
  for (const EvalRow& row : eval.rows) {
    if (!row.needle_grid) continue;
    const HeatMap map = NeedleMap(row.cache, *row.needle_grid);
    html += DrawFigure({.caption = row.cache, .caption_first = true}, [&](const PlotSize& size) {
      return DrawHeatMap(map, {size.width / (size.width > 500 ? 2 : 1), size.height, size.font});
    });
  }
  if (html.empty()) return "";
  return "<h4>Needles by length and depth</h4>\n" +
         Paragraph(
             "Right answers of those asked; yellow: all, dark: none. Compare with f16: the model itself may miss "
             "some.") +
         "<div class=\"grids\">\n" + html + "</div>\n";
}

/// A task of the table; `asked` is 0 where rows were asked differently often.
struct TaskColumn {
  std::string task = {};
  double asked = 0;
};

std::vector<TaskColumn> TaskColumns(const EvalInput& eval) {
  std::vector<TaskColumn> columns;
  for (const EvalRow& row : eval.rows) {
    for (const TaskScore& score : row.scores) {
      const auto column = std::ranges::find(columns, score.task, &TaskColumn::task);
      if (column == columns.end()) {
        columns.push_back({score.task, score.asked});
      } else if (column->asked != score.asked) {
        column->asked = 0;
      }
    }
  }
  return columns;
}

// "68.7 % (64-72)"
std::string ScoreText(const TaskScore& score, bool with_asked) {
  std::string text = StrFormat("%.1f %%", 100 * score.right / score.asked);
  if (with_asked) text += StrFormat(" of %.0f", score.asked);
  if (score.low && score.high) text += StrFormat(" (%.0f-%.0f)", 100 * *score.low, 100 * *score.high);
  return text;
}

bool Drifts(const EvalRow& row) { return row.drift_agreement || row.drift_first_difference; }

std::string TaskTable(const EvalInput& eval) {
  const std::vector<TaskColumn> tasks = TaskColumns(eval);
  const bool drift = std::ranges::any_of(eval.rows, Drifts);
  const bool shift =
      std::ranges::any_of(eval.rows, [](const EvalRow& row) { return row.context_shift_kl.has_value(); });
  if (tasks.empty() && !drift && !shift) return "";
  std::vector<Column> columns = {{"cache"}};
  for (const TaskColumn& t : tasks) {
    columns.push_back({t.task + (t.asked > 0 ? StrFormat(", of %.0f", t.asked) : ""), true});
  }
  if (drift) columns.insert(columns.end(), {{"same tokens", true}, {"first difference", true}});
  if (shift) columns.push_back({"KL after context shift", true});
  Table table(columns);
  for (const EvalRow& row : eval.rows) {
    std::vector<std::string> cells = {row.cache};
    for (const TaskColumn& t : tasks) {
      const auto score = std::ranges::find(row.scores, t.task, &TaskScore::task);
      cells.push_back(score == row.scores.end() ? "-" : ScoreText(*score, t.asked == 0));
    }
    if (drift) {
      cells.push_back(row.drift_agreement ? StrFormat("%.1f %%", 100 * *row.drift_agreement) : "-");
      const bool never =
          row.drift_first_difference && row.drift_tokens && *row.drift_first_difference >= *row.drift_tokens;
      cells.push_back(never ? "none" : NumberOr("%.0f", row.drift_first_difference));
    }
    if (shift) cells.push_back(NumberOr("%.5f", row.context_shift_kl));
    table.AddRow(std::move(cells));
  }
  return Paragraph(
             "Shares of right answers with their 95 % intervals; same tokens: of a long greedy continuation, against "
             "f16.") +
         Scrolled(table);
}

}  // namespace

std::string TaskSection(const std::vector<EvalInput>& evals) {
  std::string body;
  for (const EvalInput& eval : evals) {
    const std::string tasks = TaskTable(eval) + NeedleGrids(eval);
    if (!tasks.empty()) body += FileHeading(evals, eval) + tasks;
  }
  return Section("Tasks", body);
}

}  // namespace kvant
