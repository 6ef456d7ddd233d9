// Which rows of a window its queries attend to: how much an error in a row matters.
//
// An error e in a key moves the output by about p (q.e) (v - out), one in a value by p e, with p the softmax weight of the
// pair. Errors of different rows are independent, so what counts is p^2. Only pairs count whose row a cache would have
// compressed: not the query's own page, which is still open, and not the first rows, which stay exact.
#pragma once

#include <cstdint>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/codec.h"

namespace kvant {

/// One layer. Keys and queries come in the order of their positions.
class WindowAttention {
 public:
  /// Queries of one call of AddQueries.
  static constexpr int kMaxQueries = kMaxHeads;

  WindowAttention(int kv_heads, int dim);
  /// Forgets the window.
  void Clear();
  /// The next `count` keys, rows [count, kv_heads * dim] with a stride in floats.
  void AddKeys(int64_t count, const float* rows, size_t stride);
  /// Queries [count, dim] of one query head, times the softmax scale, at `positions` [count] rising. Adds p^2 of the pairs
  /// that count to the masses of the rows.
  /// REQUIRES: the keys up to the last position are there; queries are aligned as blocks are.
  void AddQueries(int kv_head, int count, const float* queries, const int64_t* positions);

  /// Mass of a row of the window for a KV head.
  double mass(int kv_head, int64_t pos) const { return masses_[static_cast<size_t>(pos * kv_heads_ + kv_head)]; }

 private:
  void Score(int kv_head, int count, const float* queries, int64_t num_pages);
  void AddRow(int kv_head, int64_t pos, float* scores);

  const int kv_heads_;
  const Codec codec_;                            ///< of exact pages
  std::vector<AlignedBuffer<std::byte>> pages_;  ///< [kv_heads] blocks each
  std::vector<double> masses_;                   ///< [pos][kv_heads]
  std::vector<float> scores_;                    ///< [kMaxQueries][pages * 64]
  AlignedBuffer<std::byte> prepared_;
};

}  // namespace kvant
