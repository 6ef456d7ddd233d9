// Whatever the rows are: all SIMD targets encode them like the reference, to the byte or, where a codec
// declares that codes may differ, equally well; and read the reference's block alike.
#include "codec/fuzz_subject.h"

namespace kvant {
namespace {

double Norm(const float* x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::sqrt(sum);
}

double Distance(const AlignedBuffer<float>& a, const AlignedBuffer<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum);
}

// Rows that a cache can hold: finite fp16 values.
AlignedBuffer<float> InputRows(const FuzzSubject& subject, FuzzInput& input) {
  AlignedBuffer<float> rows = FuzzRows(1, subject.dim());
  AlignedBuffer<F16> words(rows.size());
  for (size_t i = 0; i < rows.size(); ++i) words[i] = ToF16(rows[i]);
  input.OverwriteFrom(sizeof(F16), std::as_writable_bytes(words.span()));
  for (size_t i = 0; i < rows.size(); ++i) {
    const float value = ToFloat(words[i]);
    rows[i] = std::isfinite(value) ? value : 0.0f;
  }
  return rows;
}

AlignedBuffer<float> Decoded(const FuzzSubject& subject, const AlignedBuffer<std::byte>& block) {
  AlignedBuffer<float> rows(subject.num_values());
  const Status status = subject.reference.verbs.decode(subject.state(), subject.context(), block.data(), rows.data());
  KVANT_CHECK(status.ok());
  return rows;
}

void CheckBytes(const FuzzSubject& subject, const AlignedBuffer<float>& rows, const AlignedBuffer<std::byte>& want,
                const AlignedBuffer<std::byte>& got) {
  if (std::equal(want.span().begin(), want.span().end(), got.span().begin())) return;
  KVANT_CHECK(subject.info().max_code_mismatch > 0.0);
  const double error = Distance(Decoded(subject, want), rows);
  const double slack = 0.01 * error + 1e-3 * Norm(rows.data(), rows.size());
  KVANT_CHECK(std::abs(Distance(Decoded(subject, got), rows) - error) <= slack);
}

// The largest result that a read can have: |query| |row| for scores, (sum of weights) |row| for outputs.
double LargestResult(const FuzzSubject& subject, const AlignedBuffer<float>& rows, const float* operand) {
  const size_t dim = static_cast<size_t>(subject.dim());
  double row = 0, weight = 0;
  for (size_t t = 0; t < kTokensPerPage; ++t) row = std::max(row, Norm(rows.data() + t * dim, dim));
  for (size_t t = 0; t < kTokensPerPage; ++t) weight += static_cast<double>(operand[t]);
  return row * (subject.keys() ? Norm(operand, dim) : weight);
}

void CheckRead(const FuzzSubject& subject, const Codec& codec, const AlignedBuffer<std::byte>& block) {
  const AlignedBuffer<float> operand = FuzzOperand(subject, 1);
  const auto want = FuzzRead(subject.reference, subject.context(), block.data(), 1, operand.data());
  const auto got = FuzzRead(codec, subject.context(), block.data(), 1, operand.data());
  const bool coarse = subject.keys() && subject.min_error > kCoarseCodec;
  const double bound =
      (coarse ? kMaxCoarseScoreError : kMaxVerbError) * LargestResult(subject, Decoded(subject, block), operand.data());
  for (size_t i = 0; i < want.size(); ++i) {
    KVANT_CHECK(std::abs(static_cast<double>(got[i]) - static_cast<double>(want[i])) <= bound + 1e-6);
  }
}

void CheckTargets(const FuzzSubject& subject, const AlignedBuffer<float>& rows) {
  AlignedBuffer<std::byte> want(subject.reference.block_bytes()), got(want.size());
  const Status status = subject.reference.verbs.encode(subject.state(), subject.context(), rows.data(), want.data());
  KVANT_CHECK(status.ok() || status.code() == StatusCode::kInvalidArgument);
  for (const auto& [target, codec] : subject.targets) {
    KVANT_CHECK(SetSimdTarget(target));
    const Status same = codec.verbs.encode(*codec.state, subject.context(), rows.data(), got.data());
    KVANT_CHECK(same.code() == status.code());
    if (!status.ok()) continue;
    CheckBytes(subject, rows, want, got);
    CheckRead(subject, codec, want);
  }
}

}  // namespace
}  // namespace kvant

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  kvant::FuzzInput input(data, size);
  const kvant::FuzzSubject* subject = kvant::PickFuzzSubject(input);
  if (subject != nullptr) kvant::CheckTargets(*subject, kvant::InputRows(*subject, input));
  return 0;
}
