// In place of the .cu files in a build without CUDA.
#include "device_cache/device_cache.h"
#include "device_cache/device_launch.h"

namespace kvant {

struct DeviceCache::Impl {};

namespace {
Status Missing() { return Status::NotSupported("this build of kvant has no CUDA; configure with -DKVANT_CUDA=ON"); }
}  // namespace

Result<std::unique_ptr<DeviceCache>> DeviceCache::Create(const DeviceCacheConfig&) { return Missing(); }
DeviceCache::DeviceCache(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceCache::~DeviceCache() = default;

// Nothing below is reached: there is no object.
int DeviceCache::num_layers() const { return 0; }
void* DeviceCache::stream() const { return nullptr; }
Status DeviceCache::WaitFor(void*) { return Missing(); }
Status DeviceCache::Record(void*) { return Missing(); }
Status DeviceCache::Begin(std::span<const CellPlace>, const StreamRange*) { return Missing(); }
std::span<const CellPlace> DeviceCache::rows() const { return {}; }
bool DeviceCache::written(int) const { return false; }
std::vector<uint64_t> DeviceCache::LaunchState() const { return {}; }
void DeviceCache::MarkWritten() {}
Status DeviceCache::Write(int, DeviceRows, DeviceRows) { return Missing(); }
Status DeviceCache::See(const StreamRange&, const DeviceMask&) { return Missing(); }
Result<int64_t> DeviceCache::SeenPages() { return Missing(); }
Status DeviceCache::Attend(int, const DeviceQueries&) { return Missing(); }
Status DeviceCache::Decode(int, const StreamRange&, void*, void*) { return Missing(); }
Status DeviceCache::Seal(int) { return Missing(); }
Status DeviceCache::SealAll() { return Missing(); }
Status DeviceCache::BeginShift(int) { return Missing(); }
Status DeviceCache::ReplaceKeys(int, int, std::span<const uint8_t>, const void*) { return Missing(); }
Status DeviceCache::Fetch(const void*, size_t, void*) { return Missing(); }
Status DeviceCache::Synchronize() { return Missing(); }
Status DeviceCache::Read(int, Side, int, int64_t, int64_t, F16*) { return Missing(); }
Status DeviceCache::Restore(int, Side, int, int64_t, int64_t, const F16*) { return Missing(); }
void DeviceCache::Fork(int, int) {}
void DeviceCache::Truncate(int, int64_t) {}
void DeviceCache::Clear() {}
int64_t DeviceCache::num_rows(int) const { return 0; }
Footprint DeviceCache::footprint() const { return {}; }
size_t DeviceCache::memory_bytes() const { return 0; }

Status CheckDeviceCodec(const DeviceCodec&) { return Missing(); }
bool HasCudaDevice() { return false; }

DeviceLaunch::~DeviceLaunch() = default;
Status DeviceLaunch::Begin(void*) { return Missing(); }
Status DeviceLaunch::End(void*) { return Missing(); }
Status DeviceLaunch::Launch(void*) { return Missing(); }

}  // namespace kvant
