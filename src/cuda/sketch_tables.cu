// The matrix of sketches on a device, as a variable of the program: nothing is allocated.
#include "cuda/sketch_tables.h"

#include <map>
#include <mutex>
#include <utility>

#include "base/cuda.cuh"
#include "cuda/sketch_order.h"

namespace kvant::cuda {
namespace {

__device__ alignas(16) unsigned char tables_64[SketchTableLayout{64}.bytes()];
__device__ alignas(16) unsigned char tables_128[SketchTableLayout{128}.bytes()];

}  // namespace

Result<const std::byte*> DeviceSketchTables(int dim) {
  static std::mutex mutex;
  static auto& filled = *new std::map<std::pair<int, int>, const std::byte*>;  // lives as long as the program
  int device = 0;
  KVANT_CUDA_TRY(cudaGetDevice(&device));
  const std::lock_guard lock(mutex);
  const std::byte*& tables = filled[{device, dim}];
  if (tables) return tables;
  void* address = nullptr;
  KVANT_CUDA_TRY(dim == 64 ? cudaGetSymbolAddress(&address, tables_64) : cudaGetSymbolAddress(&address, tables_128));
  const AlignedBuffer<std::byte> host = MakeSketchTables(dim);
  KVANT_CUDA_TRY(cudaMemcpy(address, host.data(), host.size(), cudaMemcpyHostToDevice));
  tables = static_cast<const std::byte*>(address);
  return tables;
}

}  // namespace kvant::cuda
