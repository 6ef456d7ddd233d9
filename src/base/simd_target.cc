#include "base/simd_target.h"

#include <cstdlib>

#include "hwy/highway.h"

namespace kvant {
namespace {

int64_t Runnable() {
  hwy::SetSupportedTargetsForTest(0);
  return hwy::SupportedTargets() & (HWY_TARGETS);
}

// Applied before main, so that the first dispatch already sees it.
const bool kForcedAtStart = [] {
  const char* name = std::getenv("KVANT_FORCE_TARGET");
  return name != nullptr && SetSimdTarget(name);
}();

}  // namespace

std::vector<std::string> SimdTargets() {
  std::vector<std::string> names;
  for (int64_t left = Runnable(); left != 0; left &= left - 1) names.emplace_back(hwy::TargetName(left & -left));
  return names;
}

bool SetSimdTarget(const std::string& name) {
  for (int64_t left = Runnable(); left != 0 && !name.empty(); left &= left - 1) {
    if (name != hwy::TargetName(left & -left)) continue;
    hwy::SetSupportedTargetsForTest(left & -left);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    return true;
  }
  hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  return name.empty();
}

std::string SimdTarget() {
  const int64_t targets = hwy::SupportedTargets() & (HWY_TARGETS);
  return hwy::TargetName(targets & -targets);
}

}  // namespace kvant
