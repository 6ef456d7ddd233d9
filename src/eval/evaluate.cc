#include "eval/evaluate.h"

#include <algorithm>
#include <filesystem>

#include "base/check.h"
#include "eval/result_key.h"
#include "eval/text_run.h"
#include "kvant/plan.h"

namespace kvant {
namespace {

using Json = nlohmann::json;

constexpr const char* kReference = "f16";
constexpr const char* kText = "text";
bool IsReference(const std::string& cache) { return cache == kReference || cache == "llama:f16"; }

Status CheckRange(const char* name, int value, int min, int max) {
  if (value >= min && value <= max) return Status::Ok();
  return Status::InvalidArgument(StrFormat("%s %d is not accepted; accepted: %d..%d", name, value, min, max));
}

Status CheckOptions(const TextOptions& o) {
  KVANT_TRY(CheckRange("tokens", o.tokens, 8, 1 << 24));
  KVANT_TRY(CheckRange("skip", o.skip, 1, o.tokens - 2));
  KVANT_TRY(CheckRange("batch", o.batch, 1, 1 << 16));
  KVANT_TRY(CheckRange("scored batch", o.scored_batch, 1, 1 << 16));
  KVANT_TRY(CheckRange("needles", o.needles, 0, 1000));
  return CheckRange("decode tokens", o.decode_tokens, 0, 1 << 16);
}

// What the numbers of a text run depend on. How many tokens its times were taken over is none of that.
Json TextKey(const TextOptions& o, std::string_view text) {
  return {{"text", HashText(text)},         {"tokens", o.tokens},   {"skip", o.skip}, {"batch", o.batch},
          {"scored_batch", o.scored_batch}, {"needles", o.needles}, {"seed", o.seed}};
}

Report HeadOf(const EvaluateOptions& o) {
  Report report{.kvant_version = o.kvant_version,
                .model_hash = o.model_hash,
                .environment = ThisEnvironment(),
                .model = std::filesystem::path(o.model_path).filename().string(),
                .text = std::filesystem::path(o.text.name).filename().string(),
                .tokens = o.text.tokens,
                .skip = o.text.skip,
                .batch = o.text.batch,
                .scored_batch = o.text.scored_batch,
                .needles = o.text.needles,
                .seed = o.text.seed,
                .threads = o.threads,
                .results_folder = o.results.folder().string(),
                .task_columns = {},
                .rows = {}};
  if (!o.device.description.empty() && o.device.name != "CPU") {
    report.environment.device = o.device.name + ", " + o.device.description;
  }
  for (const auto& task : o.tasks) report.task_columns.emplace_back(task->info().column);
  return report;
}

/// One cache: its row, and what of it is still to be measured.
struct Subject {
  ReportRow row;
  bool is_reference = false;
  bool lacks_text = true;
  std::vector<bool> lacks_task;  ///< [tasks]

  bool lacks_something() const { return lacks_text || std::ranges::find(lacks_task, true) != lacks_task.end(); }
};

class Evaluation {
 public:
  Evaluation(const EvaluateOptions& options, std::string_view text, const OpenRunner& open,
             const EvaluateProgress& progress)
      : options_(options),
        text_(text),
        open_(open),
        progress_(progress),
        report_(HeadOf(options)),
        text_run_(options.text) {}

  Result<Report> Run();

 private:
  void Recall();
  Status Prepare();
  Status PrepareWork();
  Status MeasureText(Subject& subject);
  Status MeasureTask(size_t task, Subject& subject);
  Status Measure(const std::function<bool(const Subject&)>& lacks, bool needs_reference,
                 const std::function<Status(Subject&)>& measure);
  TaskRun RunOf(const Subject& subject, std::string_view task) const;
  Json KeyOf(const Subject& subject, std::string_view part, const Json& part_options) const;
  Json KeyOf(const Subject& subject, const Task& task) const;
  int ChunkTokens() const { return std::max(options_.text.batch, options_.text.scored_batch); }
  bool AddResult(size_t task, const Json& result, Subject* subject) const;

  const EvaluateOptions& options_;
  const std::string_view text_;
  const OpenRunner& open_;
  const EvaluateProgress& progress_;
  Report report_;
  TextRun text_run_;
  std::vector<Subject> subjects_;  ///< the reference first
};

Json Evaluation::KeyOf(const Subject& subject, std::string_view part, const Json& part_options) const {
  return ResultKey({.kvant_version = options_.kvant_version,
                    .environment = report_.environment,
                    .model_hash = options_.model_hash,
                    .cache = subject.row.cache,
                    .threads = options_.threads,
                    .maybe_calibration = options_.maybe_calibration.get()},
                   part, part_options);
}

// A runner cuts what a task feeds into chunks of this size.
Json Evaluation::KeyOf(const Subject& subject, const Task& task) const {
  return KeyOf(subject, task.info().name, {{"chunk", ChunkTokens()}, {"task", task.options()}});
}

TaskRun Evaluation::RunOf(const Subject& subject, std::string_view task) const {
  const std::string stage = subject.row.cache + (task == kText ? "" : ", " + std::string(task));
  return {.options = {.model_path = options_.model_path,
                      .cache = subject.row.cache,
                      .device = options_.device.name,
                      .batch = ChunkTokens(),
                      .threads = options_.threads,
                      .memory_limit_bytes = subject.is_reference ? 0 : options_.memory_limit_bytes,
                      .maybe_calibration = options_.maybe_calibration},
          .open = open_,
          .is_reference = subject.is_reference,
          .progress = [this, stage](int64_t done, int64_t total) { progress_(stage, done, total); }};
}

// ---- What earlier runs have measured ----

void Evaluation::Recall() {
  std::vector<std::string> caches = {kReference};
  std::ranges::copy_if(options_.caches, std::back_inserter(caches), std::not_fn(IsReference));
  for (const std::string& cache : caches) {
    Subject& subject = subjects_.emplace_back();
    subject.row.cache = cache;
    subject.is_reference = cache == kReference;
    if (const Result<Scheme> scheme = ReadScheme(cache); scheme.ok()) subject.row.scheme = scheme->ToString();
    const auto text = options_.results.Find(KeyOf(subject, kText, TextKey(options_.text, text_)));
    const bool found = text && RestoreText(*text, &subject.row);
    subject.lacks_text = !found || (options_.text.decode_tokens > 0 && subject.row.decode_ms == 0);
    if (!subject.lacks_text) subject.row.from_earlier.emplace_back(kText);
    subject.row.task_cells.resize(options_.tasks.size());
    for (size_t i = 0; i < options_.tasks.size(); ++i) {
      const Task& task = *options_.tasks[i];
      const auto result = options_.results.Find(KeyOf(subject, task));
      subject.lacks_task.push_back(!result || !AddResult(i, *result, &subject));
      if (!subject.lacks_task.back()) subject.row.from_earlier.emplace_back(task.info().name);
    }
  }
}

// False when the result is not of the task's form, which only a damaged file can have.
bool Evaluation::AddResult(size_t task, const Json& result, Subject* subject) const {
  if (result.is_null()) return true;
  try {
    subject->row.task_cells[task] = options_.tasks[task]->Show(result);
  } catch (const Json::exception&) {
    return false;
  }
  subject->row.results[Json::json_pointer(std::string(options_.tasks[task]->info().place))] = result;
  return true;
}

// ---- What is missing ----

Status Evaluation::Prepare() {
  if (std::ranges::any_of(subjects_, &Subject::lacks_something)) KVANT_TRY(PrepareWork());
  for (const Subject& subject : subjects_) {
    // Whether a plan is of this model is found out by opening it, also where its scheme was measured before.
    if (subject.is_reference || !(subject.lacks_something() || IsPlanPath(subject.row.cache))) continue;
    const auto opened = RunOf(subject, kText).Open(std::min(text_run_.context_tokens(), 4 * kTokensPerPage));
    if (!opened.ok()) return opened.status();
  }
  return Status::Ok();
}

Status Evaluation::PrepareWork() {
  const auto runner = RunOf(subjects_.front(), kText).Open(4 * kTokensPerPage);
  if (!runner.ok()) return runner.status();
  KVANT_TRY(text_run_.Prepare(**runner, text_));
  for (const auto& task : options_.tasks) KVANT_TRY(task->Prepare(**runner));
  return Status::Ok();
}

// The reference runs first, also when nothing but what others need of it is missing.
Status Evaluation::Measure(const std::function<bool(const Subject&)>& lacks, bool needs_reference,
                           const std::function<Status(Subject&)>& measure) {
  const bool others = std::any_of(subjects_.begin() + 1, subjects_.end(), lacks);
  if (lacks(subjects_.front()) || (needs_reference && others)) KVANT_TRY(measure(subjects_.front()));
  for (size_t i = 1; i < subjects_.size(); ++i) {
    if (lacks(subjects_[i])) KVANT_TRY(measure(subjects_[i]));
  }
  return Status::Ok();
}

Status Evaluation::MeasureText(Subject& subject) {
  ReportRow row = subject.row;
  KVANT_TRY(text_run_.Run(RunOf(subject, kText), &row));
  if (!subject.lacks_text) return Status::Ok();  // only its logits were asked for
  subject.row = std::move(row);
  return options_.results.Store(KeyOf(subject, kText, TextKey(options_.text, text_)), StoreText(subject.row));
}

Status Evaluation::MeasureTask(size_t index, Subject& subject) {
  Task& task = *options_.tasks[index];
  const Result<Json> result = task.Run(RunOf(subject, task.info().name));
  if (!result.ok()) return result.status();
  if (!subject.lacks_task[index]) return Status::Ok();
  KVANT_CHECK(AddResult(index, *result, &subject));
  return options_.results.Store(KeyOf(subject, task), *result);
}

Result<Report> Evaluation::Run() {
  Recall();
  KVANT_TRY(Prepare());
  KVANT_TRY(Measure([](const Subject& s) { return s.lacks_text; }, true, [&](Subject& s) { return MeasureText(s); }));
  for (size_t i = 0; i < options_.tasks.size(); ++i) {
    KVANT_TRY(Measure([i](const Subject& s) { return s.lacks_task[i]; }, options_.tasks[i]->info().needs_reference,
                      [&, i](Subject& s) { return MeasureTask(i, s); }));
  }
  for (Subject& subject : subjects_) report_.rows.push_back(std::move(subject.row));
  return std::move(report_);
}

}  // namespace

Result<Report> Evaluate(const EvaluateOptions& given, std::string_view text, const OpenRunner& open,
                        const EvaluateProgress& progress) {
  EvaluateOptions options = given;
  TextOptions& text_options = options.text;
  if (text_options.skip < 0) text_options.skip = text_options.tokens / 2;
  KVANT_TRY(CheckOptions(text_options));
  return Evaluation(options, text, open, progress).Run();
}

}  // namespace kvant
