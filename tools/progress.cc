#include "progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace kvant {
namespace {

constexpr int kBarWidth = 30;
constexpr size_t kStageWidth = 30;
constexpr std::chrono::milliseconds kInterval{100};

ProgressForm FormOf(const TerminalSettings& settings) {
  if (settings.progress != ProgressForm::kAuto) return settings.progress;
  return isatty(STDERR_FILENO) == 1 && !settings.quiet ? ProgressForm::kBar : ProgressForm::kNone;
}

}  // namespace

Progress::Progress() : form_(FormOf(Terminal())) {}

void Progress::Show(std::string_view stage, int64_t done, int64_t total) {
  if (form_ == ProgressForm::kNone || total <= 0) return;
  const auto now = Clock::now();
  const bool first = stage_began_ == Clock::time_point{} || stage != stage_;
  if (first) {
    Clear();
    stage_ = stage;
    stage_began_ = now;
  }
  done_ = std::clamp<int64_t>(done, 0, total);
  total_ = total;
  due_ = true;
  if (!first && now - last_ < kInterval && !(form_ == ProgressForm::kJson && done_ == total_)) return;
  last_ = now;
  form_ == ProgressForm::kBar ? Draw() : WriteJson();
}

void Progress::Draw() const {
  const size_t filled = static_cast<size_t>(kBarWidth * done_ / total_);
  const bool colors = HasColors(stderr);
  DrawBar(std::string(colors ? "[\033[32m" : "[") + std::string(filled, '#') + (colors ? "\033[0m" : "") +
          std::string(kBarWidth - filled, '.') + "] " + std::to_string(done_) + "/" + std::to_string(total_) + " " +
          stage_.substr(0, kStageWidth));
}

void Progress::WriteJson() {
  due_ = false;
  const double seconds = std::chrono::duration<double>(Clock::now() - stage_began_).count();
  const nlohmann::ordered_json line = {
      {"stage", stage_}, {"done", done_}, {"total", total_}, {"seconds", std::round(1e3 * seconds) / 1e3}};
  std::fprintf(stderr, "%s\n", line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace).c_str());
  std::fflush(stderr);
}

void Progress::Clear() {
  if (form_ == ProgressForm::kBar) EraseBar();
  if (form_ == ProgressForm::kJson && due_) WriteJson();
}

}  // namespace kvant
