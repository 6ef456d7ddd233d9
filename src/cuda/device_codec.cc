#include "kvant/device_codec.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <numbers>
#include <optional>

#include "base/aligned_buffer.h"
#include "cuda/attend_launch.h"
#include "cuda/block_order.h"
#include "cuda/encode_trellis.h"
#include "cuda/sketch_tables.h"

namespace kvant {

using cuda::AttendKernel;
using cuda::AttendParams;

static_assert(sizeof(DevicePage) == sizeof(cuda::PageRef));

namespace {

// A codec of one side with its device format.
struct SideCodec {
  Codec codec;
  DeviceFormat format;

  cuda::BlockOffsets offsets() const { return cuda::OffsetsOf(codec, format); }
};

// `maybe_choice` null: the codec of exact pages.
Result<SideCodec> MakeSide(const CodecChoice* maybe_choice, Side side, int dim) {
  const BlockShape shape = {.side = side, .dim = dim};
  Result<Codec> codec =
      maybe_choice ? MakeCodec(maybe_choice->name, maybe_choice->options, shape) : Result<Codec>(OpenPageCodec(shape));
  if (!codec.ok()) return codec.status();
  const Result<DeviceFormat> format = cuda::DeviceFormatOf(*codec);
  if (!format.ok()) return format.status();
  return SideCodec{*codec, *format};
}

// The first kernel of the tables that takes so many columns: those for few columns come first.
Result<AttendKernel> FindKernel(const SideCodec& k, const SideCodec& v, int dim, int columns) {
  const DeviceFormat& key = k.format;
  const DeviceFormat& value = v.format;
  const std::span<const AttendKernel> tables[] = {
      cuda::ExactKernels(),      cuda::UniformKernels(), cuda::GroupKernels(),  cuda::LevelKernels(),
      cuda::PlainLevelKernels(), cuda::TrellisKernels(), cuda::SketchKernels(), cuda::OutlierKernels()};
  if (tables[0].empty()) {
    return Status::NotSupported("this build of kvant has no CUDA kernels; configure with -DKVANT_CUDA=ON");
  }
  bool kinds = false, widths = false;
  for (const std::span<const AttendKernel> table : tables) {
    for (const AttendKernel& kernel : table) {
      if (kernel.kind != key.kind || kernel.value_kind != value.kind) continue;
      kinds = true;
      if (kernel.dim != dim || kernel.columns < columns) continue;
      if (kernel.key_bits != key.bits || kernel.value_bits != value.bits) continue;
      widths = true;
      if (kernel.key_offsets != k.offsets() || kernel.value_offsets != v.offsets()) continue;
      if (kernel.same_levels && !std::ranges::equal(key.levels, value.levels)) {
        return Status::NotSupported("codes of equal width with different levels for keys and values on a device");
      }
      return kernel;
    }
  }
  if (!kinds) {
    return Status::NotSupported(
        "keys and values of kinds of codes that no device kernel reads together; accepted: both uniform, levels, "
        "trellis "
        "or exact, or sketched keys with uniform values");
  }
  if (widths) {
    return Status::NotSupported(
        "groups or page means of keys and values that no device kernel reads together; docs/cuda.md lists those there "
        "are");
  }
  return Status::NotSupported(
      StrFormat("no device kernel for %d-bit keys with %d-bit values at head size %d", key.bits, value.bits, dim));
}

// What products of codes have to be multiplied with: uniform codes are quarters, levels are steps (1 for exact rows).
float CodeGain(const DeviceFormat& format) { return format.kind == CodeKind::kUniform ? 4.0f : format.step; }

// Exact pages of an item: they are few, and four times as large as sealed ones of 4 bits.
constexpr int kMostExactItems = 8;
// Units of a block where lengths differ: enough for its warps not to notice begin and end much, and many blocks that fill gaps.
constexpr int64_t kChunkUnits = 64;
// Query rows of a step.
constexpr int kMostRows = 8;

// The stride of a caller, where 0 stands for `packed`, the bytes of a slot. REQUIRES: checked.
int32_t StrideOr(size_t stride, size_t packed) { return static_cast<int32_t>(stride > 0 ? stride : packed); }

Status CheckStride(const char* name, size_t stride, size_t packed) {
  constexpr size_t kMost = size_t{1} << 31;
  const size_t used = stride > 0 ? stride : packed;
  if (used >= packed && used < kMost && used % 16 == 0) return Status::Ok();
  return Status::InvalidArgument(
      StrFormat("%s = %zu; accepted: multiples of 16 from %zu to %zu", name, used, packed, kMost - 16));
}

// `key_bytes`, `value_bytes`: of a slot's blocks.
Status CheckPages(const std::string& name, const DevicePages& pages, size_t key_bytes, size_t value_bytes) {
  if (pages.max_pages < 0) return Status::InvalidArgument(name + StrFormat(".max_pages = %d", pages.max_pages));
  if (pages.max_pages == 0) return Status::Ok();
  if (!pages.key_pool || !pages.value_pool || !pages.table || !pages.counts) {
    return Status::InvalidArgument(name + StrFormat(": a null pointer with max_pages = %d", pages.max_pages));
  }
  KVANT_TRY(CheckStride((name + ".key_stride").c_str(), pages.key_stride, key_bytes));
  return CheckStride((name + ".value_stride").c_str(), pages.value_stride, value_bytes);
}

Status CheckAligned(const char* names, std::initializer_list<const void*> pointers) {
  for (const void* p : pointers) {
    if (reinterpret_cast<uintptr_t>(p) % 16 != 0) {
      return Status::InvalidArgument(std::string(names) + " is not aligned to 16 bytes");
    }
  }
  return Status::Ok();
}

// Of pages that are encoded or decoded.
template <class Args>
Status CheckRowArgs(const Args& args, size_t block_bytes) {
  if (args.pages < 0 || args.kv_heads < 1) {
    return Status::InvalidArgument(StrFormat("pages = %d, kv_heads = %d", args.pages, args.kv_heads));
  }
  if (!args.rows || !args.slots || !args.pool) return Status::InvalidArgument("rows, slots or pool is null");
  KVANT_TRY(CheckStride("slot_stride", args.slot_stride, static_cast<size_t>(args.kv_heads) * block_bytes));
  return CheckAligned("rows or pool", {args.rows, args.pool});
}

size_t RowStride(const DeviceRows& rows, size_t row_values) {
  return rows.row_stride > 0 ? rows.row_stride : row_values * (rows.type == DeviceType::kF32 ? 4 : 2);
}

// Of rows for exact pages.
Status CheckRows(const std::string& name, const DeviceRows& rows, size_t slot_bytes) {
  if (!rows.pool) return Status::InvalidArgument(name + ".pool is null");
  KVANT_TRY(CheckAligned((name + ".pool").c_str(), {rows.pool}));
  const size_t unit = rows.type == DeviceType::kF32 ? 16 : 4;
  if (reinterpret_cast<uintptr_t>(rows.rows) % unit != 0 || rows.row_stride % unit != 0) {
    return Status::InvalidArgument(name + StrFormat(".rows or row_stride is not aligned to %zu bytes", unit));
  }
  return CheckStride((name + ".slot_stride").c_str(), rows.slot_stride, slot_bytes);
}

Status CheckShape(const DeviceAttendArgs& args) {
  if (args.heads_per_kv < 1 || args.heads_per_kv > kMaxHeads) {
    return Status::InvalidArgument(StrFormat("heads_per_kv = %d; accepted: 1..%d", args.heads_per_kv, kMaxHeads));
  }
  if (args.rows < 1 || args.rows > kMostRows) {
    return Status::InvalidArgument(StrFormat("rows = %d; accepted: 1..%d", args.rows, kMostRows));
  }
  if (!(args.soft_cap >= 0.0f) || args.fixed_pages < 0) {
    return Status::InvalidArgument(StrFormat("soft_cap = %g, fixed_pages = %d; accepted: from 0",
                                             static_cast<double>(args.soft_cap), args.fixed_pages));
  }
  if (args.sequences < 1 || args.kv_heads < 1) {
    return Status::InvalidArgument(
        StrFormat("sequences = %d, kv_heads = %d; accepted: from 1", args.sequences, args.kv_heads));
  }
  if (args.sealed.max_pages + args.exact.max_pages < 1) {
    return Status::InvalidArgument("sealed.max_pages + exact.max_pages = 0; accepted: from 1");
  }
  return Status::Ok();
}

}  // namespace

struct DeviceCodec::Impl {
  SideCodec sides[4];       // by DeviceSide
  AttendKernel kernels[2];  // for any number of columns, and for few
  int dim = 0;
  mutable std::mutex mutex;
  mutable std::optional<cuda::LaunchShape> shapes[2];

  const SideCodec& side(DeviceSide s) const { return sides[static_cast<size_t>(s)]; }
  // Of the blocks of one side in a slot.
  size_t SlotBytes(DeviceSide s, int kv_heads) const {
    return static_cast<size_t>(kv_heads) * side(s).codec.block_bytes();
  }

  // Index into kernels and shapes.
  size_t KernelFor(const DeviceAttendArgs& a) const { return a.heads_per_kv * a.rows <= kernels[1].columns ? 1 : 0; }

  Status Shape(size_t index, cuda::LaunchShape* out) const {
    const std::lock_guard lock(mutex);
    std::optional<cuda::LaunchShape>& shape = shapes[index];
    if (!shape) {
      cuda::LaunchShape found;
      KVANT_TRY(kernels[index].shape(&found));
      if (kernels[index].kind == CodeKind::kSketch) {
        const Result<const std::byte*> tables = cuda::DeviceSketchTables(dim);
        if (!tables.ok()) return tables.status();
        found.maybe_key_tables = *tables;
      }
      shape = found;
    }
    *out = *shape;
    return Status::Ok();
  }

  // What both ways of launching need; pointers into the workspace are still missing.
  AttendParams Params(const DeviceAttendArgs& a) const {
    const auto set = [&](const DevicePages& p, DeviceSide key_side, DeviceSide value_side) {
      return cuda::PageSet{.keys = static_cast<const std::byte*>(p.key_pool),
                           .values = static_cast<const std::byte*>(p.value_pool),
                           .table = static_cast<const cuda::PageRef*>(p.table),
                           .counts = p.counts,
                           .max_pages = p.max_pages,
                           .pages_per_item = 1,
                           .key_stride = StrideOr(p.key_stride, SlotBytes(key_side, a.kv_heads)),
                           .value_stride = StrideOr(p.value_stride, SlotBytes(value_side, a.kv_heads))};
    };
    AttendParams p = {};
    p.sealed = set(a.sealed, DeviceSide::kKey, DeviceSide::kValue);
    p.exact = set(a.exact, DeviceSide::kExactKey, DeviceSide::kExactValue);
    std::ranges::copy(side(DeviceSide::kKey).format.levels, p.key_levels);
    std::ranges::copy(side(DeviceSide::kValue).format.levels, p.value_levels);
    p.value_gain = CodeGain(side(DeviceSide::kValue).format);
    p.shape = {.sequences = a.sequences, .rows = a.rows, .kv_heads = a.kv_heads, .heads_per_kv = a.heads_per_kv};
    p.soft_cap = a.soft_cap * std::numbers::log2e_v<float>;
    const DeviceFormat& key = side(DeviceSide::kKey).format;
    p.tile.prepare = {.queries = a.queries,
                      .is_float = a.query_type == DeviceType::kF32,
                      .hadamard = key.hadamard,
                      .scale = a.scale * std::numbers::log2e_v<float>,
                      .sealed_gain = CodeGain(key),
                      .shape = p.shape};
    p.tile.output = {.hadamard = side(DeviceSide::kValue).format.hadamard,
                     .is_float = a.out_type == DeviceType::kF32,
                     .out = a.out,
                     .maybe_sinks = a.maybe_sinks};
    return p;
  }

  // A step: its parameters, and warps of a block when it is one launch, else 0.
  struct Step {
    AttendParams params;
    int tile_warps;
  };
  Step Plan(const DeviceAttendArgs& a, const cuda::LaunchShape& s) const {
    Step step = {Params(a), 0};
    AttendParams& p = step.params;
    p.tile.prepare.sketch_tables = s.maybe_key_tables;
    if (a.fixed_pages > 0) {
      p.sealed.pages_per_item = a.fixed_pages;
      p.exact.pages_per_item = a.fixed_pages;
      return step;
    }
    const int64_t tiles = static_cast<int64_t>(a.sequences) * a.kv_heads * p.shape.tiles();
    const int64_t tasks = a.sealed.max_pages + int64_t{cuda::kUnits} * a.exact.max_pages;
    if (a.tickets && s.wide_warps > 0 && tiles * 4 <= int64_t{kDeviceTicketBytes}) {
      const int64_t most = std::max<int64_t>(1, s.processors / tiles);
      // As few warps as need no more rounds: half of them would be idle in the last one.
      const int64_t rounds = (tasks + most * s.wide_warps - 1) / (most * s.wide_warps);
      step.tile_warps =
          static_cast<int>(std::clamp<int64_t>((tasks + most * rounds - 1) / (most * rounds), 1, s.wide_warps));
      p.tile.blocks = static_cast<int32_t>(std::min(most, (tasks + step.tile_warps - 1) / step.tile_warps));
      p.tile.tickets = static_cast<uint32_t*>(a.tickets);
      p.tile.sealed_ready = a.sealed_ready;
      if (a.ragged && tasks > kChunkUnits && a.sequences > 1) {
        step.tile_warps = s.wide_warps;
        p.tile.chunk = kChunkUnits;
        p.tile.blocks = static_cast<int32_t>((tasks + kChunkUnits - 1) / kChunkUnits);
        return step;
      }
      // Every tile has as many blocks; with much to do, no more than a tenth of the device may be left over.
      const int64_t waves = (most * tiles + s.processors - 1) / s.processors;
      const bool balanced = most * tiles * 10 >= waves * s.processors * 9;
      if (balanced || tasks <= 4 * most * step.tile_warps) return step;
    }
    // Items are as many as fit the device at once.
    step.tile_warps = 0;
    p.exact.pages_per_item = std::max(1, (a.exact.max_pages + kMostExactItems - 1) / kMostExactItems);
    const int items =
        std::clamp(static_cast<int>(s.resident_warps / tiles) - p.exact.items(), 1, std::max(1, a.sealed.max_pages));
    p.sealed.pages_per_item = std::max(1, (a.sealed.max_pages + items - 1) / items);
    return step;
  }

  struct Workspace {
    size_t queries = 0, out = 0, state = 0, bytes = 0;
  };
  Workspace Layout(const Step& step) const {
    const AttendParams& p = step.params;
    const size_t tiles =
        static_cast<size_t>(p.shape.sequences) * static_cast<size_t>(p.shape.kv_heads * p.shape.tiles());
    const size_t row = static_cast<size_t>(cuda::kTileColumns * dim);
    const size_t parts = tiles * static_cast<size_t>(step.tile_warps > 0 ? p.tile.blocks : p.items());
    Workspace w;
    const auto take = [&w](size_t bytes) {
      const size_t ofs = w.bytes;
      w.bytes += AlignUp(bytes, 256);
      return ofs;
    };
    w.queries = take(step.tile_warps > 0 ? 0 : tiles * static_cast<size_t>(kernels[0].query_bytes));
    w.out = take(parts * row * sizeof(float));
    w.state = take(parts * 2 * cuda::kTileColumns * sizeof(float));
    return w;
  }
};

DeviceCodec::DeviceCodec(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
DeviceCodec::~DeviceCodec() = default;

Result<std::unique_ptr<DeviceCodec>> DeviceCodec::Create(const CodecChoice& key, const CodecChoice& value, int dim) {
  auto impl = std::make_unique<Impl>();
  impl->dim = dim;
  const CodecChoice* choices[] = {&key, &value, nullptr, nullptr};
  for (size_t i = 0; i < std::size(choices); ++i) {
    Result<SideCodec> side = MakeSide(choices[i], i % 2 == 0 ? Side::kKey : Side::kValue, dim);
    if (!side.ok()) return side.status();
    impl->sides[i] = *std::move(side);
  }
  for (size_t i = 0; i < std::size(impl->kernels); ++i) {
    const Result<AttendKernel> kernel = FindKernel(impl->sides[0], impl->sides[1], dim, i == 0 ? cuda::kAnyColumns : 1);
    if (!kernel.ok()) return kernel.status();
    impl->kernels[i] = *kernel;
  }
  return std::unique_ptr<DeviceCodec>(new DeviceCodec(std::move(impl)));
}

int DeviceCodec::dim() const { return impl_->dim; }
size_t DeviceCodec::BlockBytes(DeviceSide side) const { return impl_->side(side).codec.block_bytes(); }

Status DeviceCodec::Encode(DeviceSide side, const float* rows, void* block) const {
  const SideCodec& s = impl_->side(side);
  AlignedBuffer<float> aligned(static_cast<size_t>(kTokensPerPage * impl_->dim));
  AlignedBuffer<std::byte> host(s.codec.block_bytes());
  std::copy_n(rows, aligned.size(), aligned.data());
  for (const float x : aligned.span()) {
    if (!std::isfinite(x)) return Status::InvalidArgument("rows hold a value that is not finite");
  }
  KVANT_TRY(s.codec.verbs.encode(*s.codec.state, {}, aligned.data(), host.data()));
  KVANT_TRY(cuda::CheckDeviceRange(s.codec, s.format, host.data()));
  cuda::ToDeviceOrder(s.codec, s.format, host.data(), static_cast<std::byte*>(block));
  return Status::Ok();
}

Status DeviceCodec::Decode(DeviceSide side, const void* block, float* rows) const {
  const SideCodec& s = impl_->side(side);
  AlignedBuffer<float> aligned(static_cast<size_t>(kTokensPerPage * impl_->dim));
  AlignedBuffer<std::byte> host(s.codec.block_bytes());
  cuda::FromDeviceOrder(s.codec, s.format, static_cast<const std::byte*>(block), host.data());
  KVANT_TRY(s.codec.verbs.decode(*s.codec.state, {}, host.data(), aligned.data()));
  std::copy_n(aligned.data(), aligned.size(), rows);
  return Status::Ok();
}

Status DeviceCodec::EncodePages(const DeviceEncodeArgs& args, void* stream) const {
  KVANT_TRY(CheckRowArgs(args, BlockBytes(args.side)));
  if (!args.refused) return Status::InvalidArgument("refused is null");
  const SideCodec& s = impl_->side(args.side);
  const DeviceFormat& f = s.format;
  const bool trellis = f.kind == CodeKind::kTrellis;
  const bool sketch = f.kind == CodeKind::kSketch;
  const std::span<const cuda::EncodeKernel> kernels = trellis  ? cuda::TrellisEncodeKernels()
                                                      : sketch ? cuda::SketchEncodeKernels()
                                                               : cuda::EncodeKernels();
  for (const cuda::EncodeKernel& kernel : kernels) {
    if (kernel.kind != f.kind || kernel.bits != f.bits || kernel.dim != impl_->dim) continue;
    if (kernel.rows != f.scales.rows) continue;
    if (f.kind != CodeKind::kExact && !f.encodable) break;
    cuda::EncodeParams p = {.rows = static_cast<const uint16_t*>(args.rows),
                            .slots = args.slots,
                            .pool = static_cast<std::byte*>(args.pool),
                            .slot_stride = StrideOr(args.slot_stride, impl_->SlotBytes(args.side, args.kv_heads)),
                            .refused = args.refused,
                            .pages = args.pages,
                            .kv_heads = args.kv_heads,
                            .is_value = s.codec.shape().side == Side::kValue,
                            .offsets = s.offsets(),
                            .step = f.step,
                            .levels = {},
                            .thresholds = {},
                            .unbiased = f.unbiased,
                            .costs = trellis ? cuda::CostsOf(f) : cuda::TrellisCosts{},
                            .sketch = f.sketch};
    std::ranges::copy(f.levels, p.levels);
    std::copy_n(f.thresholds, 7, p.thresholds);
    if (sketch) {
      const Result<const std::byte*> tables = cuda::DeviceSketchTables(impl_->dim);
      if (!tables.ok()) return tables.status();
      p.sketch_tables = *tables;
    }
    return kernel.launch(p, stream);
  }
  return Status::NotSupported("the device does not encode this codec with these options; encode on the host");
}

Status DeviceCodec::DecodePages(const DeviceDecodeArgs& args, void* stream) const {
  KVANT_TRY(CheckRowArgs(args, BlockBytes(args.side)));
  const SideCodec& s = impl_->side(args.side);
  const DeviceFormat& f = s.format;
  for (const cuda::DecodeKernel& kernel : cuda::DecodeKernels()) {
    if (kernel.kind != f.kind || kernel.bits != f.bits || kernel.dim != impl_->dim) continue;
    cuda::DecodeParams p = {.pool = static_cast<const std::byte*>(args.pool),
                            .slot_stride = StrideOr(args.slot_stride, impl_->SlotBytes(args.side, args.kv_heads)),
                            .slots = args.slots,
                            .rows = static_cast<uint16_t*>(args.rows),
                            .pages = args.pages,
                            .kv_heads = args.kv_heads,
                            .is_value = s.codec.shape().side == Side::kValue,
                            .hadamard = f.hadamard,
                            .offsets = s.offsets(),
                            .param_rows = f.scales.rows,
                            .step = f.step,
                            .levels = {}};
    std::ranges::copy(f.levels, p.levels);
    return kernel.launch(p, stream);
  }
  return Status::NotSupported("the device does not decode this codec; decode on the host");
}

Status DeviceCodec::WriteRows(const DeviceWriteArgs& args, void* stream) const {
  if (args.count < 0 || args.kv_heads < 1) {
    return Status::InvalidArgument(StrFormat("count = %d, kv_heads = %d", args.count, args.kv_heads));
  }
  cuda::WriteParams p = {};
  p.count = args.count;
  p.kv_heads = args.kv_heads;
  p.targets = args.targets;
  p.refused = args.refused;
  for (const DeviceSide side : {DeviceSide::kExactKey, DeviceSide::kExactValue}) {
    const bool is_value = side == DeviceSide::kExactValue;
    const DeviceRows& rows = is_value ? args.values : args.keys;
    if (!rows.rows) continue;
    const size_t slot_bytes = impl_->SlotBytes(side, args.kv_heads);
    const size_t row_values = static_cast<size_t>(args.kv_heads * impl_->dim);
    KVANT_TRY(CheckRows(is_value ? "values" : "keys", rows, slot_bytes));
    p.side[p.sides++] = {.rows = static_cast<const std::byte*>(rows.rows),
                         .row_stride = static_cast<int64_t>(RowStride(rows, row_values)),
                         .pool = static_cast<std::byte*>(rows.pool),
                         .slot_stride = StrideOr(rows.slot_stride, slot_bytes),
                         .is_float = rows.type == DeviceType::kF32,
                         .is_value = is_value};
  }
  if (p.count == 0 || p.sides == 0) return Status::Ok();
  if (!args.targets || !args.refused) return Status::InvalidArgument("targets or refused is null");
  return cuda::LaunchWrite(p, impl_->dim, stream);
}

Result<size_t> DeviceCodec::WorkspaceBytes(const DeviceAttendArgs& args) const {
  KVANT_TRY(CheckShape(args));
  cuda::LaunchShape shape;
  KVANT_TRY(impl_->Shape(impl_->KernelFor(args), &shape));
  return impl_->Layout(impl_->Plan(args, shape)).bytes;
}

Status DeviceCodec::Attend(const DeviceAttendArgs& args, void* stream) const {
  KVANT_TRY(CheckShape(args));
  KVANT_TRY(CheckPages("sealed", args.sealed, impl_->SlotBytes(DeviceSide::kKey, args.kv_heads),
                       impl_->SlotBytes(DeviceSide::kValue, args.kv_heads)));
  KVANT_TRY(CheckPages("exact", args.exact, impl_->SlotBytes(DeviceSide::kExactKey, args.kv_heads),
                       impl_->SlotBytes(DeviceSide::kExactValue, args.kv_heads)));
  if (!args.queries || !args.out || !args.workspace) {
    return Status::InvalidArgument("queries, out or workspace is null");
  }
  KVANT_TRY(CheckAligned("queries, out or workspace", {args.queries, args.out, args.workspace}));
  cuda::LaunchShape shape;
  const size_t index = impl_->KernelFor(args);
  const AttendKernel& kernel = impl_->kernels[index];
  KVANT_TRY(impl_->Shape(index, &shape));
  Impl::Step step = impl_->Plan(args, shape);
  const Impl::Workspace layout = impl_->Layout(step);
  if (args.workspace_bytes < layout.bytes) {
    return Status::InvalidArgument(
        StrFormat("workspace_bytes = %zu; accepted: from %zu", args.workspace_bytes, layout.bytes));
  }
  AttendParams& p = step.params;
  auto* workspace = static_cast<std::byte*>(args.workspace);
  p.tile.prepare.out = reinterpret_cast<uint32_t*>(workspace + layout.queries);
  p.queries = p.tile.prepare.out;
  p.partial_out = reinterpret_cast<float*>(workspace + layout.out);
  p.partial_state = reinterpret_cast<float*>(workspace + layout.state);
  if (step.tile_warps > 0) return kernel.launch_tiles(p, shape, step.tile_warps, stream);
  KVANT_TRY(kernel.prepare(p.tile.prepare, impl_->dim, stream));
  KVANT_TRY(kernel.launch(p, shape, stream));
  return cuda::LaunchMerge({.partial_out = p.partial_out,
                            .partial_state = p.partial_state,
                            .sealed_counts = p.sealed.max_pages > 0 ? p.sealed.counts : nullptr,
                            .exact_counts = p.exact.max_pages > 0 ? p.exact.counts : nullptr,
                            .sealed_pages_per_item = p.sealed.pages_per_item,
                            .exact_pages_per_item = p.exact.pages_per_item,
                            .sealed_items = p.sealed.items(),
                            .items = p.items(),
                            .shape = p.shape,
                            .output = p.tile.output},
                           impl_->dim, stream);
}

}  // namespace kvant
