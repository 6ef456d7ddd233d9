// kvant report: the numbers of evaluations and plans as one page for people.
#include <filesystem>
#include <memory>
#include <set>

#include "base/output_file.h"
#include "report/report_page.h"
#include "terminal.h"
#include "text_input.h"
#include "verb.h"

namespace kvant {
namespace {

struct Options {
  std::vector<std::string> inputs;
  std::string output;
};

// What the page calls each file: its name, or the whole path where two have the same name.
std::vector<std::string> PageNames(const std::vector<std::string>& paths) {
  std::multiset<std::string> names;
  const auto name_of = [](const std::string& path) { return std::filesystem::path(path).filename().string(); };
  for (const std::string& path : paths) names.insert(name_of(path));
  std::vector<std::string> unique;
  for (const std::string& path : paths) unique.push_back(names.count(name_of(path)) > 1 ? path : name_of(path));
  return unique;
}

Status Run(const Options& o) {
  const Result<OutputFile> output = OutputFile::Open(o.output);
  if (!output.ok()) return output.status();
  const std::vector<std::string> names = PageNames(o.inputs);
  std::vector<ReportInput> inputs;
  for (size_t i = 0; i < o.inputs.size(); ++i) {
    const Result<std::string> text = ReadText(o.inputs[i]);
    if (!text.ok()) return text.status();
    Result<ReportInput> input = ParseReportInput(*text, o.inputs[i]);
    if (!input.ok()) return input.status();
    std::visit([&](auto& one) { one.name = names[i]; }, *input);
    inputs.push_back(std::move(*input));
  }
  const std::string page = ReportPage(inputs, KVANT_VERSION);
  KVANT_TRY(output->Write(page));
  Note("wrote %s: %zu files, %.0f KB", o.output.c_str(), inputs.size(), static_cast<double>(page.size()) / 1e3);
  return Status::Ok();
}

}  // namespace

Verb AddReportVerb(CLI::App& app) {
  auto options = std::make_shared<Options>();
  CLI::App* command = app.add_subcommand("report", "Make one HTML page of evaluations and plans");
  command->add_option("JSON", options->inputs, "Files of kvant eval --json and kvant tune, in any order")
      ->type_name(kFileValue)
      ->required();
  command->add_option("-o,--output", options->output, "The page to write")->type_name(kFileValue)->required();
  return {command,
          [options] { return Run(*options); },
          {{"kvant report eval.json -o report.html", "A page from one evaluation"},
           {"kvant report eval.json long.json plan.json -o report.html", "Two evaluations and a plan on one page"}}};
}

}  // namespace kvant
