#include "report/report_page.h"

#include <set>

#include "report/report_sections.h"
#include "report/report_style.h"
#include "report/svg.h"

namespace kvant {
namespace {

std::string NameOf(const ReportInput& input) {
  return std::visit([](const auto& one) { return one.name; }, input);
}

Facts FactsOf(const ReportInput& input) {
  return std::visit([](const auto& one) { return one.facts; }, input);
}

// Different values of one member, without empty ones.
template <typename Member>
std::set<std::string> Distinct(const std::vector<ReportInput>& inputs, const Member& member) {
  std::set<std::string> values;
  for (const ReportInput& input : inputs) {
    std::string value = std::visit(member, input);
    if (!value.empty()) values.insert(std::move(value));
  }
  return values;
}

std::string JoinSet(const std::set<std::string>& values) {
  std::string text;
  for (const std::string& value : values) text += (text.empty() ? "" : ", ") + value;
  return text;
}

std::string Head(const std::vector<ReportInput>& inputs) {
  const auto models = Distinct(inputs, [](const auto& one) { return one.model; });
  const auto hashes = Distinct(inputs, [](const auto& one) { return one.model_hash; });
  const std::string model = models.empty() ? "an unnamed model" : JoinSet(models);
  std::string html = "<h1>KV cache report: " + EscapeHtml(model) + "</h1>\n<p class=\"lead\">From ";
  for (size_t i = 0; i < inputs.size(); ++i) html += (i ? ", " : "") + EscapeHtml(NameOf(inputs[i]));
  html += ". Every number compares a cache with the fp16 cache of the same model on the same text.</p>\n";
  if (hashes.size() > 1) {
    html += "<p class=\"note\">These files are of different models (" + EscapeHtml(JoinSet(hashes)) +
            "): compare within a file, not between them.</p>\n";
  }
  std::set<std::string> texts;
  for (const ReportInput& input : inputs) {
    const EvalInput* eval = std::get_if<EvalInput>(&input);
    if (eval != nullptr && !eval->text.empty()) texts.insert(eval->text);
  }
  if (texts.size() > 1) {
    html += "<p class=\"note\">The evaluations are on different texts (" + EscapeHtml(JoinSet(texts)) +
            "): their KL differs for that alone.</p>\n";
  }
  return html;
}

}  // namespace

// ---- what sections share

std::string Section(const std::string& title, const std::string& body) {
  return body.empty() ? "" : "<section>\n<h2>" + EscapeHtml(title) + "</h2>\n" + body + "</section>\n";
}

std::string FileHeading(const std::vector<EvalInput>& evals, const EvalInput& eval) {
  return evals.size() < 2 ? "" : "<h3>" + EscapeHtml(eval.name) + "</h3>\n";
}

std::string Paragraph(const std::string& text) { return "<p>" + EscapeHtml(text) + "</p>\n"; }

std::string Scrolled(const Table& table) { return "<div class=\"scroll\">\n" + table.ToHtml() + "</div>\n"; }

std::string NumberOr(const char* format, MaybeNumber value, const char* otherwise) {
  return value ? StrFormat(format, *value) : otherwise;
}

int SeriesOf(size_t row) { return row < kMostSeries ? static_cast<int>(row) : -1; }

std::string EnvironmentSection(const std::vector<ReportInput>& inputs) {
  std::string body;
  for (const ReportInput& input : inputs) {
    Table table({{"what"}, {"value"}});
    for (const auto& [name, value] : FactsOf(input)) table.AddRow({name, value});
    body += "<h3>" + EscapeHtml(NameOf(input)) + "</h3>\n" + Scrolled(table);
  }
  return Section("Environment", body);
}

std::string ReportPage(const std::vector<ReportInput>& inputs, const std::string& kvant_version) {
  std::vector<EvalInput> evals;
  std::string plans;
  for (const ReportInput& input : inputs) {
    if (const EvalInput* eval = std::get_if<EvalInput>(&input)) evals.push_back(*eval);
    if (const PlanInput* plan = std::get_if<PlanInput>(&input)) plans += PlanSection(*plan);
  }
  const std::string head = Head(inputs);
  return "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
         "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n<title>kvant "
         "report</title>\n<style>" +
         std::string(kReportStyle) + "</style>\n</head>\n<body>\n<main>\n" + head + QualitySection(evals) + plans +
         TaskSection(evals) + PlaceSection(evals) + SpeedSection(evals) + BytesSection(evals) +
         EnvironmentSection(inputs) + "</main>\n<footer>" + EscapeHtml("Made by kvant " + kvant_version) +
         ". Metrics: docs/evaluation.md.</footer>\n<script>" + kReportScript + "</script>\n</body>\n</html>\n";
}

}  // namespace kvant
