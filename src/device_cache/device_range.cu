#include "device_cache/device_range.h"

#include <cuda.h>

#include <algorithm>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/cuda.cuh"

namespace kvant {
namespace {

// A chunk is at least a sixteenth of what there is, so that long contexts grow in few steps.
constexpr size_t kChunkShare = 16;
// Memory goes back in chunks.
constexpr size_t kMostChunkBytes = size_t{64} << 20;

// The driver's functions, asked of the runtime: nothing links the driver.
struct Driver {
  decltype(&cuMemGetAllocationGranularity) granularity = nullptr;
  decltype(&cuMemAddressReserve) reserve = nullptr;
  decltype(&cuMemAddressFree) free_addresses = nullptr;
  decltype(&cuMemCreate) create = nullptr;
  decltype(&cuMemRelease) release = nullptr;
  decltype(&cuMemMap) map = nullptr;
  decltype(&cuMemUnmap) unmap = nullptr;
  decltype(&cuMemSetAccess) set_access = nullptr;
  bool complete = false;

  Driver() {
    complete = Find("cuMemGetAllocationGranularity", &granularity) && Find("cuMemAddressReserve", &reserve) &&
               Find("cuMemAddressFree", &free_addresses) && Find("cuMemCreate", &create) &&
               Find("cuMemRelease", &release) && Find("cuMemMap", &map) && Find("cuMemUnmap", &unmap) &&
               Find("cuMemSetAccess", &set_access);
  }
  template <class Function>
  static bool Find(const char* name, Function* out) {
    cudaDriverEntryPointQueryResult found;
    void* address = nullptr;
    const cudaError_t error = cudaGetDriverEntryPointByVersion(name, &address, 12000, cudaEnableDefault, &found);
    *out = reinterpret_cast<Function>(address);
    return error == cudaSuccess && found == cudaDriverEntryPointSuccess;
  }
};

const Driver& GetDriver() {
  static const Driver driver;
  return driver;
}

CUmemAllocationProp PropertiesOf(int device) {
  CUmemAllocationProp p = {};
  p.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  p.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
  return p;
}

CUdeviceptr AddressOf(const std::byte* p) { return reinterpret_cast<CUdeviceptr>(p); }

}  // namespace

Result<DeviceRange> DeviceRange::Reserve(size_t most_bytes) {
  DeviceRange memory;
  KVANT_CUDA_TRY(cudaGetDevice(&memory.device_));
  KVANT_CUDA_TRY(cudaFree(nullptr));  // the runtime's context, which the driver's functions need
  const Driver& driver = GetDriver();
  if (!driver.complete) return Status::NotSupported("the CUDA driver cannot map memory (cuMemMap); it is too old");
  const CUmemAllocationProp properties = PropertiesOf(memory.device_);
  CUresult error = driver.granularity(&memory.granularity_, &properties, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
  if (error != CUDA_SUCCESS) return Status::NotSupported("the device cannot map memory (cuMemMap)");
  memory.reserved_ = AlignUp(std::max<size_t>(most_bytes, 1), memory.granularity_);
  CUdeviceptr base = 0;
  error = driver.reserve(&base, memory.reserved_, 0, 0, 0);
  if (error != CUDA_SUCCESS) {
    memory.reserved_ = 0;
    return Status::OutOfMemory(StrFormat("cannot reserve %zu bytes of device addresses", most_bytes));
  }
  memory.base_ = reinterpret_cast<std::byte*>(base);
  return std::move(memory);
}

DeviceRange& DeviceRange::operator=(DeviceRange&& other) noexcept {
  std::swap(base_, other.base_);
  std::swap(reserved_, other.reserved_);
  std::swap(granularity_, other.granularity_);
  std::swap(bytes_, other.bytes_);
  std::swap(device_, other.device_);
  std::swap(chunks_, other.chunks_);
  return *this;
}

DeviceRange::~DeviceRange() {
  if (base_ == nullptr) return;
  Shrink(0);
  GetDriver().free_addresses(AddressOf(base_), reserved_);
}

Status DeviceRange::Grow(size_t bytes) {
  const size_t before = bytes_;
  while (bytes_ < bytes) {
    const size_t wanted = std::clamp(std::max(bytes - bytes_, bytes_ / kChunkShare), size_t{1}, kMostChunkBytes);
    if (bytes <= reserved_ && AddChunk(std::min(reserved_ - bytes_, AlignUp(wanted, granularity_)))) continue;
    Shrink(before);
    return Status::OutOfMemory(StrFormat("the device has no memory for %zu bytes of cache", bytes));
  }
  return Status::Ok();
}

bool DeviceRange::AddChunk(size_t bytes) {
  const Driver& driver = GetDriver();
  const CUmemAllocationProp properties = PropertiesOf(device_);
  Chunk chunk = {0, bytes};
  if (driver.create(&chunk.handle, bytes, &properties, 0) != CUDA_SUCCESS) return false;
  const CUdeviceptr at = AddressOf(base_ + bytes_);
  CUresult error = driver.map(at, bytes, 0, chunk.handle, 0);
  if (error == CUDA_SUCCESS) {
    const CUmemAccessDesc access = {.location = properties.location, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    error = driver.set_access(at, bytes, &access, 1);
    if (error != CUDA_SUCCESS) driver.unmap(at, bytes);
  }
  if (error != CUDA_SUCCESS) {
    driver.release(chunk.handle);
    return false;
  }
  chunks_.push_back(chunk);
  bytes_ += bytes;
  return true;
}

void DeviceRange::Shrink(size_t bytes) {
  while (!chunks_.empty() && bytes_ - chunks_.back().bytes >= bytes) {
    bytes_ -= chunks_.back().bytes;
    GetDriver().unmap(AddressOf(base_ + bytes_), chunks_.back().bytes);
    GetDriver().release(chunks_.back().handle);
    chunks_.pop_back();
  }
}

}  // namespace kvant
