// In place of the .cu files in a build without CUDA.
#include "cuda/attend_launch.h"
#include "cuda/page_tables.h"
#include "cuda/sketch_tables.h"

namespace kvant::cuda {
namespace {

Status Missing() {
  return Status::NotSupported("this build of kvant has no CUDA kernels; configure with -DKVANT_CUDA=ON");
}

}  // namespace

std::span<const AttendKernel> ExactKernels() { return {}; }
std::span<const AttendKernel> UniformKernels() { return {}; }
std::span<const AttendKernel> GroupKernels() { return {}; }
std::span<const AttendKernel> LevelKernels() { return {}; }
std::span<const AttendKernel> PlainLevelKernels() { return {}; }
std::span<const AttendKernel> TrellisKernels() { return {}; }
std::span<const AttendKernel> SketchKernels() { return {}; }
std::span<const AttendKernel> OutlierKernels() { return {}; }
std::span<const EncodeKernel> EncodeKernels() { return {}; }
std::span<const EncodeKernel> SketchEncodeKernels() { return {}; }
std::span<const EncodeKernel> TrellisEncodeKernels() { return {}; }
std::span<const DecodeKernel> DecodeKernels() { return {}; }

Status LaunchPrepare(const PrepareParams&, int, void*) { return Missing(); }
Result<const std::byte*> DeviceSketchTables(int) { return Missing(); }
Status LaunchMerge(const MergeParams&, int, void*) { return Missing(); }
Status LaunchPageTables(const TableParams&, void*) { return Missing(); }
Status LaunchWrite(const WriteParams&, int, void*) { return Missing(); }

}  // namespace kvant::cuda
