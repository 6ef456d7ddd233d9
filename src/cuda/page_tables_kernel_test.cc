// The kernel that builds page tables on the host (simt_host.h) against a plain loop.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "cuda/page_tables.h"
#include "cuda/simt_host.h"

namespace kvant::cuda {
namespace {

constexpr PageRef kUntouched = {0x1234, -7, -9};

struct Problem {
  std::vector<int> counts = {70, 40};  ///< pages of each stream
  int rows = 3;
  int cells = 64 * 60 + 13;
  int threads = 64;
  bool mask = true;
  double hidden = 0.5;  ///< share of the cells
  int spare_pages = 3;  ///< of the lists
};

// Lists of shuffled pages, a mask with padded rows, tables.
class Tables {
 public:
  explicit Tables(const Problem& p)
      : p_(p),
        max_pages_(*std::max_element(p.counts.begin(), p.counts.end()) + p.spare_pages),
        counts_(p.counts.begin(), p.counts.end()),
        mask_(p.counts.size() * static_cast<size_t>(p.rows) * row_halves() + kStreamGap * p.counts.size()),
        table_(p.counts.size() * static_cast<size_t>(p.rows * max_pages_), kUntouched),
        table_counts_(p.counts.size() * static_cast<size_t>(p.rows), -1) {
    MakePages();
    // Around the bound, and what stands for both; padding is seen, so that nobody may read it.
    const uint16_t hidden[] = {ToF16(-INFINITY).bits, ToF16(-65504.0f).bits, ToF16(-10008.0f).bits};
    const uint16_t seen[] = {0, ToF16(-0.0f).bits, ToF16(-10000.0f).bits, ToF16(1.0f).bits};
    std::bernoulli_distribution hide(p.hidden);
    for (int row = 0; row < rows(); ++row) {
      for (int cell = 0; cell < p.cells; ++cell) {
        mask_[MaskAt(row, cell)] = hide(rng_) ? hidden[rng_() % 3] : seen[rng_() % 4];
      }
    }
  }

  void Build() {
    const TableParams params = Params();
    for (int row = 0; row < rows(); ++row) {
      KeptPages kept;
      HostBlock::Run(p_.threads, [&](int thread) {
        BuildTableThread<HostWarp>(params, params.list[0], row, thread, p_.threads, kept);
      });
    }
  }
  void ExpectThoseOfAPlainLoop() const {
    for (int row = 0; row < rows(); ++row) {
      std::vector<PageRef> want;
      for (int i = 0; i < counts_[static_cast<size_t>(row / p_.rows)]; ++i) {
        const PageRef& page = pages_[static_cast<size_t>(row / p_.rows * max_pages_ + i)];
        uint64_t live = 0;
        for (int t = 0; t < kPageTokens; ++t) {
          const bool held = (page.live >> t & 1) != 0;
          if (held && IsSeen(row, int64_t{page.ahead} * kPageTokens + t)) live |= uint64_t{1} << t;
        }
        if (live != 0) want.push_back({live, page.slot, 0});
      }
      EXPECT_EQ(table_counts_[static_cast<size_t>(row)], static_cast<int32_t>(want.size())) << row;
      want.resize(static_cast<size_t>(max_pages_), kUntouched);
      EXPECT_TRUE(std::equal(want.begin(), want.end(), table_.begin() + row * max_pages_)) << row;
    }
  }
  int pages_of_row(int row) const { return table_counts_[static_cast<size_t>(row)]; }

 private:
  static constexpr size_t kStreamGap = 24;  // halves

  int rows() const { return static_cast<int>(counts_.size()) * p_.rows; }
  size_t row_halves() const { return static_cast<size_t>((p_.cells + 7) / 8 * 8 + 16); }
  size_t stream_halves() const { return static_cast<size_t>(p_.rows) * row_halves() + kStreamGap; }
  size_t MaskAt(int row, int cell) const {
    return static_cast<size_t>(row / p_.rows) * stream_halves() + static_cast<size_t>(row % p_.rows) * row_halves() +
           static_cast<size_t>(cell);
  }
  bool IsSeen(int row, int64_t cell) const {
    if (!p_.mask) return true;
    if (cell < 0 || cell >= p_.cells) return false;
    return kvant::ToFloat(F16{mask_[MaskAt(row, static_cast<int>(cell))]}) >= -1e4f;
  }
  // Numbers in any order, some beyond the mask; pages that hold all rows, some or none.
  void MakePages() {
    for (const int count : p_.counts) {
      std::vector<int32_t> numbers(static_cast<size_t>(count));
      std::iota(numbers.begin(), numbers.end(), 0);
      std::shuffle(numbers.begin(), numbers.end(), rng_);
      for (int i = 0; i < max_pages_; ++i) {
        const uint64_t some = uint64_t{rng_()} << 32 | rng_();
        const uint64_t live[] = {~uint64_t{0}, some, some >> 40, 0};
        const int32_t number = i < count ? numbers[static_cast<size_t>(i)] : 0;  // beyond: plausible, but not in use
        pages_.push_back({live[rng_() % 4], static_cast<int32_t>(rng_() % 1000), number});
      }
    }
    if (p_.counts[0] > 5) pages_[5].ahead = -0x7FFFFFFF - 1;
    if (p_.counts[0] > 6) pages_[6].ahead = 0x7FFFFFFF;
  }
  TableParams Params() {
    TableParams params = {};
    params.list[0] = {pages_.data(), counts_.data(), max_pages_, table_.data(), table_counts_.data()};
    params.lists = 1;
    params.streams = static_cast<int32_t>(counts_.size());
    params.rows = p_.rows;
    params.cells = p_.cells;
    params.maybe_mask = p_.mask ? reinterpret_cast<const std::byte*>(mask_.data()) : nullptr;
    params.mask_row_stride = static_cast<int64_t>(2 * row_halves());
    params.mask_stream_stride = static_cast<int64_t>(2 * stream_halves());
    return params;
  }

  Problem p_;
  std::mt19937 rng_{3};
  int max_pages_;
  std::vector<int32_t> counts_;
  std::vector<PageRef> pages_;
  AlignedBuffer<uint16_t> mask_;
  std::vector<PageRef> table_;
  std::vector<int32_t> table_counts_;
};

void ExpectThoseOfAPlainLoop(const Problem& p) {
  Tables tables(p);
  tables.Build();
  tables.ExpectThoseOfAPlainLoop();
}

TEST(PageTablesKernel, RandomMasks) {
  for (const double hidden : {0.02, 0.5, 0.98, 0.999}) ExpectThoseOfAPlainLoop({.hidden = hidden});
}

TEST(PageTablesKernel, BlocksOfAnySize) {
  for (const int threads : {32, 96, 1024}) ExpectThoseOfAPlainLoop({.threads = threads, .hidden = 0.98});
}

TEST(PageTablesKernel, CellsThatEndAnywhere) {
  for (const int cells : {0, 1, 7, 8, 63, 64, 65, 64 * 39 + 56, 64 * 70}) ExpectThoseOfAPlainLoop({.cells = cells});
}

TEST(PageTablesKernel, EmptyLists) {
  ExpectThoseOfAPlainLoop({.counts = {0, 3}});
  ExpectThoseOfAPlainLoop({.counts = {0}, .rows = 1});
}

TEST(PageTablesKernel, NoMask) {
  ExpectThoseOfAPlainLoop({.mask = false});
  ExpectThoseOfAPlainLoop({.cells = 0, .mask = false});
}

TEST(PageTablesKernel, AllHidden) {
  Tables tables({.hidden = 1.0});
  tables.Build();
  tables.ExpectThoseOfAPlainLoop();
  for (int row = 0; row < 6; ++row) EXPECT_EQ(tables.pages_of_row(row), 0);
}

TEST(PageTablesKernel, KnowsTheBound) {
  for (uint32_t half = 0; half < 0x10000; ++half) {
    const bool seen = kvant::ToFloat(F16{static_cast<uint16_t>(half)}) >= -1e4f;
    for (int i = 0; i < 8; ++i) {
      Words4 halves = {0xFC00FC00u, 0xFC00FC00u, 0xFC00FC00u, 0xFC00FC00u};
      halves.word[i / 2] = i % 2 == 0 ? 0xFC000000u | half : half << 16 | 0xFC00u;
      EXPECT_EQ(SeenBits<HostWarp>(halves), seen ? 1u << i : 0u) << half;
    }
  }
}

}  // namespace
}  // namespace kvant::cuda
