#include "llama/kv_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "codec/calibrated.h"
#include "llama/position_stamp.h"

namespace kvant {
Result<std::unique_ptr<KvBuffer>> KvBuffer::Create(const KvSettings& settings, size_t bytes) {
  void* base = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (base == MAP_FAILED) {
    return Status::OutOfMemory(StrFormat("cannot reserve %zu bytes of address space for the cache", bytes));
  }
  return std::unique_ptr<KvBuffer>(new KvBuffer(settings, base, bytes));
}

KvBuffer::~KvBuffer() { munmap(base_, bytes_); }

// ---- Layers ----

void KvBuffer::AddTensor(const ggml_tensor& tensor) { tensors_.push_back(MakeKvTensor(tensor)); }

const KvTensor* KvBuffer::Find(const void* address) const {
  const auto it = std::ranges::find_if(tensors_, [&](const KvTensor& t) { return t.Contains(address); });
  return it == tensors_.end() ? nullptr : &*it;
}

Status KvBuffer::LearnHeads(const KvTensor& tensor, int64_t heads, int64_t dim) {
  if (tensor.heads == heads && tensor.dim == dim) return Status::Ok();
  if (heads < 1 || heads * dim != tensor.row_values) {
    return Status::NotSupported(
        StrFormat("layer %d: %lld heads of %lld values do not make up a cache row of "
                  "%lld values",
                  tensor.name.layer, static_cast<long long>(heads), static_cast<long long>(dim),
                  static_cast<long long>(tensor.row_values)));
  }
  KVANT_TRY(CheckLayers());
  const CodecChoice& choice = settings_.scheme.Choice(tensor.name.layer, tensor.name.side == Side::kKey);
  const Result<Codec> codec = MakeCodec(
      choice.name, choice.options,
      {.side = tensor.name.side, .dim = static_cast<int>(dim), .layer = tensor.name.layer, .num_layers = num_layers()});
  if (!codec.ok()) return codec.status();
  const auto bases =
      FindBases(*codec, choice.options, settings_.maybe_calibration.get(), tensor.name.layer, static_cast<int>(heads));
  if (!bases.ok()) return bases.status();
  if (codec->state->keys_before_rope && heads * dim < kStampValues) {
    return Status::NotSupported(StrFormat("layer %d: codec %s needs cache rows of %d values, not %lld",
                                          tensor.name.layer, choice.name.c_str(), kStampValues,
                                          static_cast<long long>(heads * dim)));
  }
  Known(tensor).before_rope = codec->state->keys_before_rope;
  KVANT_TRY(CheckRope(tensor));
  Known(tensor).heads = static_cast<int>(heads);
  Known(tensor).dim = static_cast<int>(dim);
  return Status::Ok();
}

Status KvBuffer::LearnRope(const KvTensor& tensor, const Result<RopeShape>& rope) {
  Known(tensor).rope = rope.ok() ? *rope : RopeShape();
  Known(tensor).no_rope = rope.ok() ? "" : rope.status().message();
  return CheckRope(tensor);
}

// The host plans the write of a layer before its attention, but does not promise it.
Status KvBuffer::CheckRope(const KvTensor& tensor) const {
  if (!tensor.before_rope || tensor.no_rope.empty()) return Status::Ok();
  return Status::NotSupported(
      StrFormat("layer %d: codec %s keeps keys as they were before RoPE, but %s", tensor.name.layer,
                settings_.scheme.Choice(tensor.name.layer, true).name.c_str(), tensor.no_rope.c_str()));
}

// A cache of a part of the layers (a model with sliding windows has two) does not say how many the model has.
Status KvBuffer::CheckLayers() const {
  const auto layers =
      static_cast<int>(std::ranges::count_if(tensors_, [](const KvTensor& t) { return t.name.side == Side::kKey; }));
  if (layers == num_layers()) return settings_.scheme.CheckLayers(layers);
  if (settings_.scheme.num_layers == 0 || num_layers() <= settings_.scheme.num_layers) return Status::Ok();
  return settings_.scheme.CheckLayers(num_layers());
}

int KvBuffer::num_layers() const {
  int last = 0;
  for (const KvTensor& t : tensors_) last = std::max(last, t.name.layer);
  return last + 1;
}

Status KvBuffer::CheckLayer(const KvTensor& keys, const KvTensor& values) const {
  return settings_.on_cuda ? CheckDeviceLayer(settings_, {&keys, &values}, num_layers()) : Status::Ok();
}

Status KvBuffer::EnsureCache() {
  if (cells_) return Status::Ok();
  std::vector<KvLayer> layers;
  for (KvTensor& key : tensors_) {
    const auto value = std::ranges::find_if(
        tensors_, [&](const KvTensor& t) { return t.name.layer == key.name.layer && t.name.side == Side::kValue; });
    if (key.name.side != Side::kKey || key.heads == 0 || value == tensors_.end() || value->heads == 0) continue;
    if (key.heads != value->heads) {
      return Status::NotSupported(
          StrFormat("layer %d has %d heads for K and %d for V", key.name.layer, key.heads, value->heads));
    }
    key.index = value->index = static_cast<int>(layers.size());
    layers.push_back({&key, &*value});
  }
  Result<std::unique_ptr<KvCells>> cells =
      settings_.on_cuda ? MakeDeviceCells(settings_, layers) : MakeHostCells(settings_, layers);
  if (!cells.ok()) return cells.status();
  cells_ = std::move(cells).value();
  return Status::Ok();
}

KvStore& KvBuffer::store(const KvTensor& tensor) const {
  KvCache& cache = *cells_->host();
  return tensor.name.side == Side::kKey ? cache.keys(tensor.index) : cache.values(tensor.index);
}

// ---- Bytes ----

Result<const KvTensor*> KvBuffer::FindStored(const void* address) {
  KVANT_TRY(EnsureCache());
  const KvTensor* tensor = Find(address);
  if (tensor && tensor->index >= 0) return tensor;
  return Status::Internal("the host touched a cache layer that none of its attention nodes reads");
}

Status KvBuffer::ReadBytes(const void* address, std::span<std::byte> out) {
  const Result<const KvTensor*> found = FindStored(address);
  if (!found.ok()) return found.status();
  const KvTensor& tensor = **found;
  const size_t row_bytes = tensor.row_bytes();
  std::vector<F16> rows;
  for (KvRange at = tensor.Locate(address); !out.empty(); at = {at.stream + 1, 0, 0}) {
    const auto wanted = static_cast<int64_t>((at.byte_in_row + out.size() + row_bytes - 1) / row_bytes);
    const int64_t count = std::min(wanted, tensor.cells - at.first_cell);
    rows.resize(static_cast<size_t>(count * tensor.row_values));
    KVANT_TRY(cells_->Read(tensor, at.stream, at.first_cell, count, rows.data()));
    const size_t bytes = std::min(out.size(), static_cast<size_t>(count) * row_bytes - at.byte_in_row);
    std::memcpy(out.data(), reinterpret_cast<const std::byte*>(rows.data()) + at.byte_in_row, bytes);
    out = out.subspan(bytes);
  }
  return Status::Ok();
}

Status KvBuffer::WriteBytes(const void* address, std::span<const std::byte> in) {
  const Result<const KvTensor*> found = FindStored(address);
  if (!found.ok()) return found.status();
  const KvTensor& tensor = **found;
  KvRange at = tensor.Locate(address);
  if (at.byte_in_row != 0 || in.size() % tensor.row_bytes() != 0) {
    return Status::NotSupported(StrFormat("the host wrote a part of a cache row (layer %d)", tensor.name.layer));
  }
  for (; !in.empty(); at = {at.stream + 1, 0, 0}) {
    const auto left = static_cast<int64_t>(in.size() / tensor.row_bytes());
    const int64_t count = std::min(left, tensor.cells - at.first_cell);
    KVANT_TRY(cells_->Write(tensor, at.stream, at.first_cell, count, reinterpret_cast<const F16*>(in.data())));
    in = in.subspan(static_cast<size_t>(count) * tensor.row_bytes());
  }
  return Status::Ok();
}

Status KvBuffer::ZeroBytes(const void* address, size_t bytes) {
  const Result<const KvTensor*> found = FindStored(address);
  if (!found.ok()) return found.status();
  const KvTensor& tensor = **found;
  const KvRange at = tensor.Locate(address);
  const int64_t held = cells_->num_rows(tensor, at.stream);
  const auto end = at.first_cell + static_cast<int64_t>(bytes / tensor.row_bytes());
  if (at.first_cell >= held) return Status::Ok();
  if (end >= held) return cells_->Truncate(tensor, at.stream, at.first_cell);
  return WriteBytes(address, std::vector<std::byte>(bytes));
}

Status KvBuffer::CopyStream(const void* from, const void* to, size_t bytes) {
  const Result<const KvTensor*> found = FindStored(from);
  if (!found.ok()) return found.status();
  const KvTensor& tensor = **found;
  if (!tensor.Contains(to)) return Status::NotSupported("the host copied between different cache tensors");
  const KvRange source = tensor.Locate(from);
  const KvRange target = tensor.Locate(to);
  const bool whole = source.first_cell == 0 && target.first_cell == 0 && source.byte_in_row == 0 &&
                     target.byte_in_row == 0 && bytes == tensor.bytes() / static_cast<size_t>(tensor.streams);
  if (!whole) return Status::NotSupported("the host copied a part of a sequence");
  return cells_->Fork(tensor, source.stream, target.stream);
}

void KvBuffer::Clear() {
  damage_ = Status::Ok();
  if (cells_) cells_->Clear();
  cleared_ = true;
  Report();
}

// ---- Reports ----

void KvBuffer::set_damage(Status status) {
  if (damage_.ok()) damage_ = std::move(status);
}

void KvBuffer::Report() {
  if (reported_bytes_ != nullptr && cleared_) *reported_bytes_ = std::max<size_t>(1, memory_bytes());
}

Footprint KvBuffer::footprint() const { return cells_ ? cells_->footprint() : Footprint{}; }

size_t KvBuffer::memory_bytes() const { return cells_ ? cells_->memory_bytes() : 0; }

double KvBuffer::seal_seconds() const { return cells_ ? cells_->seal_seconds() : 0; }

}  // namespace kvant
