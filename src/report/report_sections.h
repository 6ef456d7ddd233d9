// The sections of a report, each as HTML; empty where no input has anything for it.
#pragma once

#include <string>
#include <vector>

#include "eval/table.h"
#include "report/report_input.h"

namespace kvant {

/// Pareto plot and table.
std::string QualitySection(const std::vector<EvalInput>& evals);
/// What the bits are made of.
std::string BytesSection(const std::vector<EvalInput>& evals);
/// KL along the text, and error of the attention by layer.
std::string PlaceSection(const std::vector<EvalInput>& evals);
/// Needles and the other tasks.
std::string TaskSection(const std::vector<EvalInput>& evals);
/// Decoding and prefill against context.
std::string SpeedSection(const std::vector<EvalInput>& evals);
/// Heat map of bits, comparison with uniform caches, predicted against measured.
std::string PlanSection(const PlanInput& plan);
std::string EnvironmentSection(const std::vector<ReportInput>& inputs);

// ---- what sections share

/// "<section>...", empty for an empty body.
std::string Section(const std::string& title, const std::string& body);
/// "<h3>" with the file's name, when there are several.
std::string FileHeading(const std::vector<EvalInput>& evals, const EvalInput& eval);
std::string Paragraph(const std::string& text);
/// A table that scrolls by itself where it is wider than the screen.
std::string Scrolled(const Table& table);
std::string NumberOr(const char* format, MaybeNumber value, const char* otherwise = "-");
/// Index of a row's colour and mark, the same in all figures; -1: beyond those that are drawn.
int SeriesOf(size_t row);

}  // namespace kvant
