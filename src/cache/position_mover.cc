#include "cache/position_mover.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "cache/page_rows.h"

namespace kvant {

// Rare, and quick beside any other way to shift: by one thread.
Status PositionMover::Move(const Team& team, Sequence& sequence, std::span<const int32_t> shift) {
  team.Sync();
  if (team.leader()) {
    status_.Reset();
    status_.Record(0, MoveAll(sequence, shift));
  }
  team.Sync();
  return status_.Get();
}

Status PositionMover::MoveAll(Sequence& sequence, std::span<const int32_t> shift) const {
  KVANT_TRY(CheckPositions(sequence, shift));
  KVANT_TRY(TurnSinks(sequence, ShiftOf(sequence, 0, shift)));  // the last step that can fail
  for (int64_t page = 0; page < std::ssize(sequence.pages()); ++page) {
    const PageShift s = ShiftOf(sequence, page, shift);
    if (s.rows == 0) continue;
    int32_t* positions = sequence.PositionsOf(page);
    if (sequence.FindPage(page)->open) {
      TurnExact(format_->open, positions, s, s.rows, sequence.OpenBytes(page));
    }
    for (int t = 0; t < kTokensPerPage; ++t) positions[t] += s.by[t];
  }
  return Status::Ok();
}

PositionMover::PageShift PositionMover::ShiftOf(const Sequence& sequence, int64_t page,
                                                std::span<const int32_t> shift) {
  PageShift result;
  const Page* p = sequence.FindPage(page);
  if (p == nullptr) return result;
  for (uint64_t rest = p->live; rest != 0; rest &= rest - 1) {
    const int t = std::countr_zero(rest);
    const auto row = static_cast<size_t>(page * kTokensPerPage + t);
    if (row >= shift.size() || shift[row] == 0) continue;
    result.rows |= uint64_t{1} << t;
    result.by[t] = shift[row];
  }
  return result;
}

Status PositionMover::CheckPositions(const Sequence& sequence, std::span<const int32_t> shift) const {
  for (int64_t page = 0; page < std::ssize(sequence.pages()); ++page) {
    const PageShift s = ShiftOf(sequence, page, shift);
    for (uint64_t rest = s.rows; rest != 0; rest &= rest - 1) {
      const int t = std::countr_zero(rest);
      const int64_t position = int64_t{sequence.FindPage(page)->maybe_positions()[t]} + s.by[t];
      if (position >= 0 && position < kMaxPositions) continue;
      return PositionOutOfRange(*format_, page * kTokensPerPage + t, position);
    }
  }
  return Status::Ok();
}

// Forks share the exact rows of sinks, so these are turned in a copy.
Status PositionMover::TurnSinks(Sequence& sequence, const PageShift& shift) const {
  const uint64_t rows = shift.rows & format_->sink_mask();
  if (sequence.maybe_sinks() == nullptr || rows == 0) return Status::Ok();
  auto sinks = std::make_shared<PoolSlot>(pool_, sequence.maybe_sinks()->bytes());
  if (!*sinks) return pool_->OutOfMemory(format_->Where());
  std::memcpy(sinks->data(), sequence.maybe_sinks()->data(), sinks->bytes());
  TurnExact(format_->sinks, sequence.PositionsOf(0), shift, rows, sinks->data());
  sequence.CommitSinks(std::move(sinks));
  sequence.RebuildView();
  return Status::Ok();
}

void PositionMover::TurnExact(const Codec& codec, const int32_t* positions, const PageShift& shift, uint64_t rows,
                              std::byte* blocks) const {
  const auto dim = static_cast<size_t>(format_->dim());
  std::vector<F16> row(dim);
  std::vector<float> values(dim);
  for (int head = 0; head < format_->kv_heads; ++head) {
    std::byte* block = BlockOf(codec, blocks, head);
    for (uint64_t rest = rows; rest != 0; rest &= rest - 1) {
      const int t = std::countr_zero(rest);
      const int32_t moved = positions[t] + shift.by[t];
      codec.info->load_row(codec.shape(), block, t, row.data());
      std::ranges::transform(row, values.begin(), [](F16 x) { return ToFloat(x); });
      TurnRowsBack(*format_->maybe_rope, positions + t, 1, values.data());
      TurnRows(*format_->maybe_rope, &moved, 1, values.data());
      std::ranges::transform(values, row.begin(), [](float x) { return ToF16(std::clamp(x, -kF16Max, kF16Max)); });
      codec.info->store_row(codec.shape(), block, t, row.data());
    }
  }
}

}  // namespace kvant
