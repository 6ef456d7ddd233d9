#include "progress.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string>

namespace kvant {
namespace {

constexpr int kBarWidth = 30;
constexpr std::chrono::milliseconds kInterval{100};

}  // namespace

Progress::Progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

void Progress::Show(std::string_view stage, int64_t done, int64_t total) {
  const auto now = std::chrono::steady_clock::now();
  if (!terminal_ || total <= 0 || now - last_ < kInterval) return;
  last_ = now;
  drawn_ = true;
  const size_t filled = static_cast<size_t>(kBarWidth * std::clamp<int64_t>(done, 0, total) / total);
  const std::string bar = std::string(filled, '#') + std::string(kBarWidth - filled, '.');
  std::fprintf(stderr, "\r\033[K[%s] %lld/%lld %.*s", bar.c_str(), static_cast<long long>(done),
               static_cast<long long>(total), static_cast<int>(std::min<size_t>(stage.size(), 30)), stage.data());
  std::fflush(stderr);
}

void Progress::Clear() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace kvant
