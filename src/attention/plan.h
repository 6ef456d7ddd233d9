// How the work of one attention call is cut into items, and what scratch memory they need.
#pragma once

#include <cstddef>
#include <cstdint>

#include "attention/attention.h"

namespace kvant {

/// Item i = (query row, KV head, part of the rows); parts of a head are merged at the end. The cut depends on the
/// arguments and the team's size only, so results are reproducible for a given number of threads.
struct AttendPlan {
  int heads = 0;              ///< query heads per KV head
  int parts = 0;              ///< parts of the rows
  int64_t rows_per_part = 0;  ///< a multiple of kTokensPerPage
  size_t num_items = 0;

  // One thread's scratch, in bytes from its start.
  size_t query_ofs = 0, prepared_ofs = 0, scores_ofs = 0, weights_ofs = 0, acc_ofs = 0, thread_bytes = 0;
  // One item's result: max [heads], sum [heads], out [heads, v_dim].
  size_t state_bytes = 0;

  size_t workspace_bytes(int team_size) const {
    return thread_bytes * static_cast<size_t>(team_size) + state_bytes * num_items;
  }
};

AttendPlan Plan(const AttendArgs& args, int team_size);

}  // namespace kvant
