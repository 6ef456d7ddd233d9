#include "cache/sequence.h"

#include <bit>
#include <cstring>
#include <utility>

namespace kvant {
namespace {

constexpr uint64_t kFull = ~uint64_t{0};

/// Rows of `page` below `num_rows`.
uint64_t RowsBelow(int64_t num_rows, int64_t page) {
  const int64_t rows = std::clamp<int64_t>(num_rows - page * kTokensPerPage, 0, kTokensPerPage);
  return rows == 0 ? 0 : kFull >> (kTokensPerPage - rows);
}

// False: no memory. Nothing to do for an empty slot.
bool CopySlot(const PoolSlot& from, PagePool* pool, PoolSlot* to) {
  if (!from) return true;
  *to = PoolSlot(pool, from.bytes());
  if (!*to) return false;
  std::memcpy(to->data(), from.data(), from.bytes());
  return true;
}

}  // namespace

const Page* Sequence::FindPage(int64_t page) const {
  if (page < 0 || page >= std::ssize(pages_) || pages_[static_cast<size_t>(page)].is_empty()) return nullptr;
  return &pages_[static_cast<size_t>(page)];
}

// ---- sealing

bool Sequence::IsDue(int64_t page) const {
  if (page == 0 && format_->sink_tokens == kTokensPerPage) return false;
  return pages_[static_cast<size_t>(page)].live == kFull;
}

std::vector<int64_t> Sequence::DuePages(size_t max_pages) const {
  std::vector<int64_t> due;
  if (format_->needs_basis() && basis_ == nullptr && !WantsBasis()) return due;
  for (const int64_t page : open_pages_) {
    if (due.size() == max_pages || (page + 1) * kTokensPerPage + format_->recent_tokens > num_rows_) break;
    if (IsDue(page)) due.push_back(page);
  }
  return due;
}

bool Sequence::WantsBasis() const {
  if (!format_->fits_online()) return false;
  const CodecState& state = *format_->sealed.state;
  if (basis_ == nullptr) return rows_held_ >= state.basis_min_tokens;
  if (state.basis_refit_tokens == 0) return false;
  const int64_t enough = std::max(state.basis_refit_tokens, state.basis_min_tokens);
  return segment_.rows_written >= std::max(enough, segment_.first_row);
}

// ---- changes

void Sequence::CommitWrite(int64_t page, PoolSlot slot, PoolSlot positions, uint64_t written) {
  if (page >= std::ssize(pages_)) pages_.resize(static_cast<size_t>(page) + 1);
  Page& p = pages_[static_cast<size_t>(page)];
  const bool opened = static_cast<bool>(slot);
  if (opened) {
    p.open = std::move(slot);
    p.sealed.reset();
    if (page == 0) sinks_.reset();
    open_pages_.insert(page);
  }
  if (positions) p.positions = std::move(positions);
  rows_held_ += std::popcount(written & ~p.live);
  p.live |= written;
  const int64_t first_row = page * kTokensPerPage;
  num_rows_ = std::max<int64_t>(num_rows_, first_row + std::bit_width(written));
  for (uint64_t rest = written; rest != 0; rest &= rest - 1) segment_.Add(first_row + std::countr_zero(rest));
  if (!opened) page_views_[p.view_index].live = p.live;
}

void Sequence::SetClass(int64_t row, TokenClass token_class) {
  std::unique_ptr<TokenClasses>& classes = pages_[static_cast<size_t>(PageOfRow(row))].maybe_classes;
  if (classes == nullptr) {
    if (token_class == TokenClass::kOrdinary) return;
    classes = std::make_unique<TokenClasses>();
  }
  (*classes)[static_cast<size_t>(row % kTokensPerPage)] = token_class;
}

void Sequence::CommitSeal(int64_t page, std::shared_ptr<const SealedPage> sealed,
                          std::shared_ptr<const PoolSlot> sinks) {
  Page& p = pages_[static_cast<size_t>(page)];
  p.sealed = std::move(sealed);
  p.open.Reset();
  p.maybe_classes.reset();
  open_pages_.erase(page);
  if (page == 0) sinks_ = std::move(sinks);
}

void Sequence::CommitBasis(std::shared_ptr<const Basis> basis) {
  basis_ = std::move(basis);
  segment_ = Segment();
}

void Sequence::Truncate(int64_t num_rows) {
  if (num_rows >= num_rows_) return;
  for (int64_t page = PageOfRow(num_rows); page < std::ssize(pages_); ++page) {
    Page& p = pages_[static_cast<size_t>(page)];
    const uint64_t kept = p.live & RowsBelow(num_rows, page);
    rows_held_ -= std::popcount(p.live ^ kept);
    p.live = kept;
    if (kept != 0) continue;
    if (page == 0) sinks_.reset();
    open_pages_.erase(page);
    p = Page();
  }
  while (!pages_.empty() && pages_.back().is_empty()) pages_.pop_back();
  num_rows_ = pages_.empty() ? 0 : (std::ssize(pages_) - 1) * kTokensPerPage + std::bit_width(pages_.back().live);
  segment_.end_row = std::min(segment_.end_row, num_rows_);
  // What follows so short a start is most likely another text, which deserves its own basis.
  if (!format_->has_calibrated && rows_held_ < format_->sealed.state->basis_min_tokens) basis_.reset();
  if (rows_held_ == 0) segment_ = Segment();
  RebuildView();
}

Result<Sequence> Sequence::Fork(PagePool* pool) const {
  Sequence copy(format_, basis_);
  copy.pages_.resize(pages_.size());
  for (size_t i = 0; i < pages_.size(); ++i) {
    copy.pages_[i].sealed = pages_[i].sealed;
    copy.pages_[i].live = pages_[i].live;
    if (!CopySlot(pages_[i].open, pool, &copy.pages_[i].open) ||
        !CopySlot(pages_[i].positions, pool, &copy.pages_[i].positions)) {
      return pool->OutOfMemory(format_->Where());
    }
    if (pages_[i].open && pages_[i].maybe_classes)
      copy.pages_[i].maybe_classes = std::make_unique<TokenClasses>(*pages_[i].maybe_classes);
  }
  copy.open_pages_ = open_pages_;
  copy.sinks_ = sinks_;
  copy.segment_ = segment_;
  copy.num_rows_ = num_rows_;
  copy.rows_held_ = rows_held_;
  copy.RebuildView();
  return copy;
}

// ---- view

void Sequence::RebuildView() {
  page_views_.clear();
  runs_.clear();
  page_views_.reserve(pages_.size() + 1);  // runs point into it
  for (int64_t i = 0; i < std::ssize(pages_); ++i) {
    Page& page = pages_[static_cast<size_t>(i)];
    const int64_t first_row = i * kTokensPerPage;
    if (page.open) {
      page.view_index = page_views_.size();
      AddToView(format_->open, nullptr, {page.open.data(), first_row, page.live});
    } else if (page.sealed != nullptr) {
      const uint64_t sinks = i == 0 ? page.live & format_->sink_mask() : 0;
      if (sinks != 0) AddToView(format_->sinks, nullptr, {sinks_->data(), first_row, sinks});
      AddToView(format_->sealed, page.sealed->maybe_basis.get(),
                {page.sealed->blocks.data(), first_row, page.live & ~sinks, page.maybe_positions()});
    }
  }
}

void Sequence::AddToView(const Codec& codec, const Basis* maybe_basis, const PageView& view) {
  if (view.live == 0) return;
  page_views_.push_back(view);
  const PageView* added = &page_views_.back();
  const std::span<const std::byte* const> bases =
      maybe_basis == nullptr ? std::span<const std::byte* const>() : maybe_basis->of_heads;
  if (!runs_.empty() && runs_.back().codec == &codec && runs_.back().bases.data() == bases.data()) {
    runs_.back().pages = {runs_.back().pages.data(), added + 1};
  } else {
    const Rope* rope = view.maybe_positions == nullptr ? nullptr : format_->maybe_rope.get();
    runs_.push_back({&codec, bases, {added, 1}, rope});
  }
}

}  // namespace kvant
