// What the fuzz targets of codecs share: the first bytes of an input choose a configured codec, the rest is
// content.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/check.h"
#include "base/simd_target.h"
#include "codec/golden_rows.h"
#include "codec/registry.h"
#include "codec/test_rope.h"

namespace kvant {

/// The bytes of one input, taken from the front; zeros when there are none left.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : rest_(data, size) {}

  uint8_t Byte() {
    if (rest_.empty()) return 0;
    const uint8_t byte = rest_.front();
    rest_ = rest_.subspan(1);
    return byte;
  }
  /// 0..end-1; REQUIRES: 0 < end <= 65536
  size_t Below(size_t end) { return (Byte() * size_t{256} + Byte()) % end; }

  /// Overwrites the end of `bytes`, from an offset that the input gives, with the rest of the input over and
  /// over. So a short input reaches every byte, and one that is empty changes nothing.
  void OverwriteFrom(size_t granule, std::span<std::byte> bytes) {
    const size_t first = Below(bytes.size() / granule) * granule;
    if (rest_.empty()) return;
    for (size_t i = first; i < bytes.size(); ++i) bytes[i] = std::byte{rest_[(i - first) % rest_.size()]};
  }

 private:
  std::span<const uint8_t> rest_;
};

/// Rows [64 * pages, dim].
inline AlignedBuffer<float> FuzzRows(int pages, int dim) {
  const size_t page_values = static_cast<size_t>(kTokensPerPage * dim);
  AlignedBuffer<float> rows(static_cast<size_t>(pages) * page_values);
  for (int page = 0; page < pages; ++page) {
    GoldenRows(static_cast<uint64_t>(page), dim, rows.data() + static_cast<size_t>(page) * page_values);
  }
  return rows;
}

/// A configured codec, with its verbs for every SIMD target of this machine.
struct FuzzSubject {
  struct OnTarget {
    std::string target;
    Codec codec;
  };

  Codec reference;
  std::vector<OnTarget> targets;
  double min_error = 0;                  ///< Expectation::min_error
  AlignedBuffer<std::byte> basis_bytes;  ///< empty: without a basis
  TestRope rope;

  const CodecInfo& info() const { return *reference.info; }
  const CodecState& state() const { return *reference.state; }
  BlockContext context() const { return rope.Context(state(), basis_bytes.data()); }
  bool keys() const { return state().shape.side == Side::kKey; }
  int dim() const { return state().shape.dim; }
  size_t num_values() const { return static_cast<size_t>(kTokensPerPage * dim()); }
};

// Nothing where the codec refuses the head size.
inline std::optional<FuzzSubject> MakeFuzzSubject(const CodecInfo& info, const Expectation& e, int dim, bool fit) {
  const auto options = ParseCodecOptions(info, e.options);
  const BlockShape shape = {.side = e.side, .dim = dim};
  Result<Codec> reference = MakeCodec(info.name, *options, shape, Implementation::kReference);
  if (!reference.ok()) return std::nullopt;
  FuzzSubject subject{*std::move(reference), {}, e.min_error, {}, TestRope(dim)};
  for (const std::string& target : SimdTargets()) {
    KVANT_CHECK(SetSimdTarget(target));
    subject.targets.push_back({target, *MakeCodec(info.name, *options, shape)});
  }
  if ((fit || NeedsBasis(subject.state())) && subject.state().basis_bytes > 0) {
    const int pages = std::max(subject.state().basis_min_tokens, 256) / kTokensPerPage;
    AlignedBuffer<float> sample = FuzzRows(pages, dim);
    const size_t tokens = static_cast<size_t>(pages * kTokensPerPage);
    TurnFitRows(subject.state(), static_cast<int>(tokens), sample.data());
    subject.basis_bytes = AlignedBuffer<std::byte>(subject.state().basis_bytes);
    KVANT_CHECK(
        info.fit_basis(subject.state(), {.rows = sample.data(), .tokens = tokens}, subject.basis_bytes.data()).ok());
  }
  return subject;
}

/// Takes four bytes: codec, options (one of its expectations), head size, with or without a basis. Null where
/// the codec refuses the head size.
inline const FuzzSubject* PickFuzzSubject(FuzzInput& input) {
  constexpr int kDims[] = {64, 80, 128, 256};
  const auto codecs = AllCodecs();
  const CodecInfo& info = *codecs[input.Byte() % codecs.size()];
  const Expectation& e = info.expectations[input.Byte() % info.expectations.size()];
  const int dim = kDims[input.Byte() % std::size(kDims)];
  const bool fit = input.Byte() % 2 == 1;

  using Key = std::tuple<const Expectation*, int, bool>;
  static std::map<Key, std::optional<FuzzSubject>> subjects;  // fitting is far slower than one input
  auto [it, is_new] = subjects.try_emplace(Key{&e, dim, fit});
  if (is_new) it->second = MakeFuzzSubject(info, e, dim, fit);
  return it->second ? &*it->second : nullptr;
}

/// Scores [heads, 64] of a block for queries [heads, dim], or outputs [heads, dim] for weights [heads, 64].
inline AlignedBuffer<float> FuzzRead(const Codec& codec, const BlockContext& context, const std::byte* block, int heads,
                                     const float* operand) {
  const CodecState& state = *codec.state;
  const size_t count = static_cast<size_t>(heads);
  if (state.shape.side == Side::kKey) {
    AlignedBuffer<std::byte> prepared(count * state.prepared_head_bytes);
    AlignedBuffer<float> scores(count * kTokensPerPage);
    codec.verbs.prepare_query(state, context, operand, heads, prepared.data());
    codec.verbs.score(state, context, block, prepared.data(), heads, scores.data());
    return scores;
  }
  AlignedBuffer<float> acc(count * static_cast<size_t>(state.acc_dim)),
      out(count * static_cast<size_t>(state.shape.dim));
  codec.verbs.accumulate(state, context, block, operand, heads, acc.data());
  codec.verbs.finish(state, context, acc.data(), heads, out.data());
  return out;
}

/// Queries [heads, dim] of some directions for keys; weights [heads, 64] from 1 down to e^-7, and zeros, for
/// values.
inline AlignedBuffer<float> FuzzOperand(const FuzzSubject& subject, int heads) {
  const int width = subject.keys() ? subject.dim() : kTokensPerPage;
  const AlignedBuffer<float> rows = FuzzRows(1, width);
  AlignedBuffer<float> operand(static_cast<size_t>(heads * width));
  for (size_t i = 0; i < operand.size(); ++i) {
    const float x = rows[i];
    operand[i] = subject.keys() ? x : x == 0.0f ? 0.0f : std::exp(-std::min(std::abs(x), 7.0f));
  }
  return operand;
}

}  // namespace kvant
