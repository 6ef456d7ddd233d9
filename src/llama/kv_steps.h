// The work of our nodes in a graph, run by all threads of a team at the same time.
//
// Every function is called by each member of the team with the same arguments and returns the same Status on each.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "attention/attention.h"
#include "base/aligned_buffer.h"
#include "base/team.h"
#include "llama/kv_ops.h"

namespace kvant {

/// SET_ROWS. Next: the attention of the layer.
Status WriteCells(const Team& team, const WriteOp& op);

/// FLASH_ATTN_EXT of few queries, straight from the pages. Next: SealStreams.
class FusedAttention {
 public:
  /// `workspace` is shared by the nodes of a graph and grows.
  FusedAttention(const AttentionOp& op, AlignedBuffer<std::byte>* workspace);
  Status Run(const Team& team);

 private:
  Status Prepare(int stream, int team_size);

  const AttentionOp op_;
  AlignedBuffer<std::byte>* const workspace_;
  std::vector<float> slopes_;  ///< ALiBi [q_heads], or empty
  AttendArgs args_;            ///< of the stream at hand; written by the leader, as is
  Status status_;              ///< whether they could be prepared
};

/// Decodes all cells that an attention reads: K to keys [streams, cells, row_values], V likewise. Next: the inner
/// FLASH_ATTN_EXT on them.
Status DecodeLayer(const Team& team, const AttentionOp& op, F16* keys, F16* values);

/// Seals what is due in the streams of an attention.
Status SealStreams(const Team& team, const AttentionOp& op);

/// Writes back the rows of a stream that were turned (shift[row] != 0), and seals.
Status WriteShifted(const Team& team, const ShiftOp& op, int stream, std::span<const int32_t> shift,
                    const RowTarget& rows);

}  // namespace kvant
