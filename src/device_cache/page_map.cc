#include "device_cache/page_map.h"

#include <algorithm>
#include <bit>
#include <map>
#include <utility>

#include "page/block_layout.h"

namespace kvant {
namespace {

using Kind = MappedPage::Kind;
using Touched = PageMap::WritePlan::Touched;

constexpr uint64_t kAllRows = ~uint64_t{0};

uint64_t BitsFrom(int64_t row) { return row >= kTokensPerPage ? 0 : kAllRows << row; }

// Rows first .. last - 1 of a page that begins at row `start`.
uint64_t RowsBetween(int64_t start, int64_t first, int64_t last) {
  const auto clamp = [&](int64_t row) { return std::clamp<int64_t>(row - start, 0, kTokensPerPage); };
  return BitsFrom(clamp(first)) & ~BitsFrom(clamp(last));
}

}  // namespace

PageMap::PageMap(const PageMapConfig& config) : config_(config), streams_(static_cast<size_t>(config.streams)) {}

MappedPage& PageMap::PageAt(int s, int64_t page) {
  std::vector<MappedPage>& pages = stream(s).pages;
  if (page >= std::ssize(pages)) pages.resize(static_cast<size_t>(page) + 1);
  return pages[static_cast<size_t>(page)];
}

MappedPage PageMap::Find(int s, int64_t page) const {
  const std::vector<MappedPage>& pages = stream(s).pages;
  return page < std::ssize(pages) ? pages[static_cast<size_t>(page)] : MappedPage();
}

// ---- plans

bool PageMap::NeedsSlot(const MappedPage& page) const { return page.kind != Kind::kExact || exact_.Shared(page.slot); }

bool PageMap::IsDue(int64_t page, uint64_t rows, int64_t num_rows) const {
  if (page == 0 && config_.sink_tokens > 0) return false;
  return rows == kAllRows && (page + 1) * kTokensPerPage + config_.recent_tokens <= num_rows;
}

PageMap::WritePlan PageMap::PlanWrite(std::span<const CellPlace> rows) const {
  WritePlan plan{.rows = {rows.begin(), rows.end()}, .pages = {}, .due = {}};
  std::map<std::pair<int, int64_t>, uint64_t> touched;
  std::map<int, int64_t> num_rows;  // of the streams touched, afterwards
  for (const CellPlace& cell : rows) {
    touched[{cell.stream, cell.row / kTokensPerPage}] |= uint64_t{1} << (cell.row % kTokensPerPage);
    auto [it, is_new] = num_rows.try_emplace(cell.stream, stream(cell.stream).num_rows);
    it->second = std::max(it->second, cell.row + 1);
  }
  int64_t new_slots = 0;
  for (const auto& [place, bits] : touched) {
    plan.pages.push_back({place.first, place.second, bits});
    const MappedPage page = Find(place.first, place.second);
    if (NeedsSlot(page)) ++new_slots;
    if (page.kind != Kind::kExact && IsDue(place.second, page.rows | bits, num_rows[place.first])) {
      plan.due.push_back({place.first, place.second, kAllRows});
    }
  }
  for (const auto& [s, count] : num_rows) {
    for (const int64_t page : stream(s).exact) {
      const auto it = touched.find({s, page});
      const uint64_t bits = it == touched.end() ? 0 : it->second;
      if (IsDue(page, Find(s, page).rows | bits, count)) plan.due.push_back({s, page, kAllRows});
    }
  }
  plan.exact_end = exact_.EndAfter(new_slots);
  plan.sealed_end = sealed_.EndAfter(std::ssize(plan.due));
  return plan;
}

PageMap::RestorePlan PageMap::PlanRestore(int s, int64_t first, int64_t count) const {
  RestorePlan plan{.stream = s, .first = first, .count = count, .sealed = {}, .exact = {}};
  const int64_t num_rows = std::max(stream(s).num_rows, first + count);
  int64_t new_exact = 0;
  int64_t new_sealed = 0;
  for (int64_t page = first / kTokensPerPage; page * kTokensPerPage < first + count; ++page) {
    const uint64_t rows = RowsBetween(page * kTokensPerPage, first, first + count);
    const MappedPage old = Find(s, page);
    if (old.kind != Kind::kExact && IsDue(page, rows, num_rows)) {
      plan.sealed.push_back({s, page, rows});
      if (old.kind == Kind::kNone || sealed_.Shared(old.slot)) ++new_sealed;
    } else {
      plan.exact.push_back({s, page, rows});
      if (NeedsSlot(old)) ++new_exact;
    }
  }
  plan.exact_end = exact_.EndAfter(new_exact);
  plan.sealed_end = sealed_.EndAfter(new_sealed);
  return plan;
}

PageMap::WritePlan PageMap::PlanUnshare(int s) const {
  WritePlan plan;
  int64_t shared_exact = 0;
  int64_t shared_sealed = 0;
  for (const MappedPage& page : stream(s).pages) {
    if (page.kind == Kind::kExact && exact_.Shared(page.slot)) ++shared_exact;
    if (page.kind == Kind::kSealed && sealed_.Shared(page.slot)) ++shared_sealed;
  }
  plan.exact_end = exact_.EndAfter(shared_exact);
  plan.sealed_end = sealed_.EndAfter(shared_sealed);
  return plan;
}

// ---- changes

// After this the page is exact and nobody else's.
void PageMap::MakeExact(int s, int64_t number, PageChanges* changes) {
  MappedPage& page = PageAt(s, number);
  if (!NeedsSlot(page)) return;
  const int32_t slot = exact_.Take();
  if (page.kind == Kind::kNone) changes->cleared.push_back(slot);
  if (page.kind == Kind::kExact) {
    changes->copied_exact.push_back({page.slot, slot});
    exact_.Drop(page.slot);
  }
  if (page.kind == Kind::kSealed) {
    changes->opened.push_back({page.slot, slot});
    sealed_.Drop(page.slot);
  }
  page.kind = Kind::kExact;
  page.slot = slot;
  stream(s).exact.insert(number);
}

PageChanges PageMap::Commit(const WritePlan& plan) {
  PageChanges changes;
  for (const Touched& t : plan.pages) {
    MakeExact(t.stream, t.page, &changes);
    PageAt(t.stream, t.page).rows |= t.rows;
  }
  for (const CellPlace& cell : plan.rows) {
    const int32_t slot = Find(cell.stream, cell.row / kTokensPerPage).slot;
    changes.targets.push_back(slot * kTokensPerPage + static_cast<int32_t>(cell.row % kTokensPerPage));
    stream(cell.stream).num_rows = std::max(stream(cell.stream).num_rows, cell.row + 1);
  }
  for (const Touched& t : plan.due) {
    MappedPage& page = PageAt(t.stream, t.page);
    const int32_t slot = sealed_.Take();
    changes.sealed.push_back({page.slot, slot});
    exact_.Drop(page.slot);
    page.kind = Kind::kSealed;
    page.slot = slot;
    stream(t.stream).exact.erase(t.page);
  }
  return changes;
}

PageChanges PageMap::Commit(const RestorePlan& plan, std::vector<int32_t>* sealed_slots) {
  PageChanges changes;
  for (const Touched& t : plan.sealed) {
    MappedPage& page = PageAt(t.stream, t.page);
    if (page.kind == Kind::kSealed && sealed_.Shared(page.slot)) {
      sealed_.Drop(page.slot);
      page.kind = Kind::kNone;
    }
    if (page.kind == Kind::kNone) page = {Kind::kSealed, sealed_.Take(), 0};
    page.rows = t.rows;
    sealed_slots->push_back(page.slot);
  }
  for (const Touched& t : plan.exact) {
    MakeExact(t.stream, t.page, &changes);
    MappedPage& page = PageAt(t.stream, t.page);
    page.rows |= t.rows;
    for (uint64_t bits = t.rows; bits != 0; bits &= bits - 1) {
      changes.targets.push_back(page.slot * kTokensPerPage + std::countr_zero(bits));
    }
  }
  stream(plan.stream).num_rows = std::max(stream(plan.stream).num_rows, plan.first + plan.count);
  return changes;
}

PageChanges PageMap::CommitUnshare(int s) {
  PageChanges changes;
  for (MappedPage& page : stream(s).pages) {
    if (page.kind == Kind::kNone) continue;
    SlotTable& slots = page.kind == Kind::kExact ? exact_ : sealed_;
    if (!slots.Shared(page.slot)) continue;
    const int32_t slot = slots.Take();
    (page.kind == Kind::kExact ? changes.copied_exact : changes.copied_sealed).push_back({page.slot, slot});
    slots.Drop(page.slot);
    page.slot = slot;
  }
  return changes;
}

bool PageMap::Fork(int from, int to) {
  if (from == to) return true;
  const auto same = [](const MappedPage& a, const MappedPage& b) {
    return a.kind == b.kind && a.slot == b.slot && a.rows == b.rows;
  };
  if (std::ranges::equal(stream(from).pages, stream(to).pages, same)) return true;
  for (const MappedPage& page : stream(from).pages) {
    if (page.kind != Kind::kNone) (page.kind == Kind::kExact ? exact_ : sealed_).Share(page.slot);
  }
  Stream copy = stream(from);
  Clear(to);
  stream(to) = std::move(copy);
  return false;
}

void PageMap::Release(Stream& st, int64_t number) {
  MappedPage& page = st.pages[static_cast<size_t>(number)];
  if (page.kind == Kind::kExact) exact_.Drop(page.slot);
  if (page.kind == Kind::kSealed) sealed_.Drop(page.slot);
  st.exact.erase(number);
  page = {};
}

void PageMap::Truncate(int s, int64_t rows) {
  Stream& st = stream(s);
  if (rows >= st.num_rows) return;
  for (int64_t page = rows / kTokensPerPage; page < std::ssize(st.pages); ++page) {
    MappedPage& p = st.pages[static_cast<size_t>(page)];
    p.rows &= ~BitsFrom(std::max<int64_t>(0, rows - page * kTokensPerPage));
    if (p.rows == 0) Release(st, page);
  }
  UpdateNumRows(st);
}

void PageMap::UpdateNumRows(Stream& st) {
  while (!st.pages.empty() && st.pages.back().kind == Kind::kNone) st.pages.pop_back();
  st.num_rows = st.pages.empty() ? 0 : std::ssize(st.pages) * kTokensPerPage - std::countl_zero(st.pages.back().rows);
}

void PageMap::Clear(int s) { Truncate(s, 0); }

int64_t PageMap::rows_held() const {
  int64_t rows = 0;
  for (const Stream& st : streams_) {
    for (const MappedPage& page : st.pages) rows += std::popcount(page.rows);
  }
  return rows;
}

}  // namespace kvant
