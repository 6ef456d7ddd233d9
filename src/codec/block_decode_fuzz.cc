// Whatever the bytes of a block and of a basis are: decode gives finite rows or Corruption, and a block that
// it accepts gives finite scores and outputs on every SIMD target.
#include "base/all_finite.h"
#include "codec/fuzz_subject.h"

namespace kvant {
namespace {

// Changes up to three bytes; the rest of the input belongs to the block.
AlignedBuffer<std::byte> DamagedBasis(const FuzzSubject& subject, FuzzInput& input) {
  AlignedBuffer<std::byte> basis(subject.basis_bytes.size());
  std::copy_n(subject.basis_bytes.data(), basis.size(), basis.data());
  for (int left = input.Byte() % 4; left > 0; --left) {
    const size_t at = input.Below(basis.size());
    basis[at] = std::byte{input.Byte()};
  }
  return basis;
}

// Encodes on the fastest target: that encoders agree is the other fuzz target's business.
AlignedBuffer<std::byte> DamagedBlock(const FuzzSubject& subject, const BlockContext& context, FuzzInput& input) {
  const auto& [target, codec] = subject.targets.front();
  KVANT_CHECK(SetSimdTarget(target));
  AlignedBuffer<std::byte> block(codec.block_bytes());
  const AlignedBuffer<float> rows = FuzzRows(1, subject.dim());
  KVANT_CHECK(codec.verbs.encode(*codec.state, context, rows.data(), block.data()).ok());
  input.OverwriteFrom(1, block.span());
  return block;
}

void CheckBlock(const FuzzSubject& subject, const BlockContext& context, const std::byte* block, int heads) {
  AlignedBuffer<float> rows(subject.num_values());
  const AlignedBuffer<float> operand = FuzzOperand(subject, heads);
  const Status status = subject.reference.verbs.decode(subject.state(), context, block, rows.data());
  KVANT_CHECK(status.ok() || status.code() == StatusCode::kCorruption);
  KVANT_CHECK(!status.ok() || AllFinite(rows.span()));
  for (const auto& [target, codec] : subject.targets) {
    KVANT_CHECK(SetSimdTarget(target));
    const Status same = codec.verbs.decode(*codec.state, context, block, rows.data());
    KVANT_CHECK(same.code() == status.code());
    if (!status.ok()) continue;
    KVANT_CHECK(AllFinite(rows.span()));
    KVANT_CHECK(AllFinite(FuzzRead(codec, context, block, heads, operand.data()).span()));
  }
}

}  // namespace
}  // namespace kvant

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvant::FuzzInput input(data, size);
  const kvant::FuzzSubject* subject = kvant::PickFuzzSubject(input);
  if (subject == nullptr) return 0;
  const int heads = 1 + input.Byte() % kvant::kMaxHeads;
  kvant::AlignedBuffer<std::byte> basis;
  if (subject->basis_bytes.size() != 0) {
    basis = kvant::DamagedBasis(*subject, input);
    if (!subject->info().check_basis(subject->state(), basis.data()).ok()) return 0;
  }
  const kvant::BlockContext context = subject->rope.Context(subject->state(), basis.data());
  const auto block = kvant::DamagedBlock(*subject, context, input);
  kvant::CheckBlock(*subject, context, block.data(), heads);
  return 0;
}
