#include "cache/basis_fitter.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "cache/page_rows.h"

namespace kvant {
namespace {

// Statistics of a head settle long before this many rows; the bound keeps the working memory of a fit (all
// heads, float) at 2 MiB per head of 128 whatever the length of the prompt.
constexpr size_t kMaxFitRows = 4096;

}  // namespace

void BasisFitter::FitIfWanted(const Team& team, Sequence& sequence, TeamStatus& status) {
  if (team.leader()) {
    basis_.reset();
    if (sequence.WantsBasis()) status.Record(0, Plan(sequence));
  }
  if (status.Agree(team) && basis_ != nullptr) {
    GatherShare(team, sequence, status);
    if (status.Agree(team)) {
      FitShare(team, status);
      if (status.Agree(team) && team.leader()) sequence.CommitBasis(std::exchange(basis_, nullptr));
    }
  }
  team.Sync();
  if (team.leader()) {
    rows_ = {};
    basis_.reset();
  }
}

// ---- which rows

Status BasisFitter::Plan(const Sequence& sequence) {
  ChooseRows(sequence);
  // The sinks are not fitted to, so the first rows of a sequence may give that many less.
  if (num_rows_ + static_cast<size_t>(format_->sink_tokens) <
      static_cast<size_t>(format_->sealed.state->basis_min_tokens)) {
    return Status::Ok();
  }
  rows_ = AlignedBuffer<float>(num_rows_ * format_->row_values());
  if (rows_.data() == nullptr) return OutOfScratch(*format_);
  basis_ = NewBasis(*format_, pool_);
  return basis_ != nullptr ? Status::Ok() : pool_->OutOfMemory(format_->Where());
}

uint64_t BasisFitter::FitRows(const Sequence& sequence, int64_t page) const {
  const Page* p = sequence.FindPage(page);
  if (p == nullptr) return 0;
  uint64_t rows = page == 0 ? p->live & ~format_->sink_mask() : p->live;
  if (sequence.maybe_basis() == nullptr) return rows;
  for (int t = 0; t < kTokensPerPage; ++t) {
    const int64_t row = page * kTokensPerPage + t;
    if (row < sequence.segment().first_row || row >= sequence.segment().end_row) rows &= ~(uint64_t{1} << t);
  }
  return rows;
}

void BasisFitter::ChooseRows(const Sequence& sequence) {
  size_t available = 0;
  for (int64_t page = 0; page < std::ssize(sequence.pages()); ++page) {
    available += static_cast<size_t>(std::popcount(FitRows(sequence, page)));
  }
  const size_t step = std::max<size_t>(1, (available + kMaxFitRows - 1) / kMaxFitRows);
  pages_.clear();
  num_rows_ = 0;
  size_t seen = 0;
  for (int64_t page = 0; page < std::ssize(sequence.pages()); ++page) {
    PageRows chosen = {page, 0, num_rows_};
    for (uint64_t rest = FitRows(sequence, page); rest != 0; rest &= rest - 1) {
      if (seen++ % step == 0) chosen.chosen |= rest & -rest;
    }
    num_rows_ += static_cast<size_t>(std::popcount(chosen.chosen));
    if (chosen.chosen != 0) pages_.push_back(chosen);
  }
}

// ---- gather and fit

void BasisFitter::GatherShare(const Team& team, const Sequence& sequence, TeamStatus& status) {
  RowScratch scratch(*format_);
  if (!scratch.ok()) return status.Record(0, OutOfScratch(*format_));
  const size_t heads = static_cast<size_t>(format_->kv_heads);
  const auto [first, last] = team.Share(pages_.size() * heads);
  for (size_t item = first; item < last; ++item) {
    const PageRows& page = pages_[item / heads];
    const int head = static_cast<int>(item % heads);
    status.Record(static_cast<int64_t>(item), LoadRows(*format_, sequence, page.page, head, scratch));
    if (format_->keeps_positions()) {
      TurnRowsBack(*format_->maybe_rope, sequence.FindPage(page.page)->maybe_positions(), kTokensPerPage,
                   scratch.rows());
    }
    CopyChosen(page, head, scratch.rows());
  }
}

void BasisFitter::CopyChosen(const PageRows& page, int head, const float* rows) {
  const size_t dim = static_cast<size_t>(format_->dim());
  float* out = rows_.data() + (static_cast<size_t>(head) * num_rows_ + page.out_row) * dim;
  for (uint64_t rest = page.chosen; rest != 0; rest &= rest - 1) {
    out = std::copy_n(rows + static_cast<size_t>(std::countr_zero(rest)) * dim, dim, out);
  }
}

void BasisFitter::FitShare(const Team& team, TeamStatus& status) {
  const int num_bases = format_->num_bases();
  const size_t rows_per_basis = num_rows_ * static_cast<size_t>(format_->kv_heads / num_bases);
  const size_t values_per_basis = rows_per_basis * static_cast<size_t>(format_->dim());
  const auto [first, last] = team.Share(static_cast<size_t>(num_bases));
  for (size_t i = first; i < last; ++i) {
    const Status fitted = format_->sealed.info->fit_basis(
        *format_->sealed.state, {.rows = rows_.data() + i * values_per_basis, .tokens = rows_per_basis},
        basis_->slot.data() + i * format_->basis_stride_bytes());
    if (fitted.ok()) continue;
    status.Record(static_cast<int64_t>(i), {fitted.code(), StrFormat("%s, head %zu: %s", format_->Where().c_str(), i,
                                                                     fitted.message().c_str())});
  }
}

}  // namespace kvant
