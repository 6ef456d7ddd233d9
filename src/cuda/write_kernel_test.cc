// The kernels that write rows into exact pages on the host (simt_host.h) against the CPU codec.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/registry.h"
#include "cuda/block_order.h"
#include "cuda/simt_host.h"
#include "cuda/write_warp.h"

namespace kvant::cuda {
namespace {

constexpr int kHeads = 3;
constexpr int kSlots = 3;
constexpr std::byte kOther{0xA5};
// Rows of three slots, first and last ones, neighbours, and two that are left out.
const std::vector<int32_t> kTargets = {64, 65, 2 * 64 + 63, -1, 0, 127, 130, 2 * 64 + 17, -64};

// Pages of one side in a pool, rows that are written into them.
class Pages {
 public:
  Pages(Side side, int dim, bool is_float, int gap)
      : codec_(OpenPageCodec({.side = side, .dim = dim})),
        is_float_(is_float),
        gap_(gap),
        pages_(static_cast<size_t>(kSlots * kPageTokens * kHeads * dim)),
        rows_(kTargets.size() * static_cast<size_t>(kHeads * dim)) {
    for (float& x : pages_) x = kvant::ToFloat(ToF16(normal_(rng_)));
    for (float& x : rows_) x = is_float ? normal_(rng_) : kvant::ToFloat(ToF16(normal_(rng_)));
  }

  float& row_value(size_t i) { return rows_[i]; }
  size_t row_values() const { return rows_.size() / kTargets.size(); }

  // The pool after the rows were written by the kernel.
  std::vector<std::byte> Written() {
    std::vector<std::byte> pool = Encoded(pages_);
    const AlignedBuffer<std::byte> rows = SourceRows();
    WriteParams p = {};
    p.side[0] = {.rows = rows.data(),
                 .row_stride = row_stride(),
                 .pool = pool.data(),
                 .slot_stride = slot_stride(),
                 .is_float = is_float_,
                 .is_value = codec_.shape().side == Side::kValue};
    p.sides = 1;
    p.count = static_cast<int32_t>(kTargets.size());
    p.kv_heads = kHeads;
    p.targets = kTargets.data();
    p.refused = &refused_;
    for (int row = 0; row < p.count; ++row) {
      for (int head = 0; head < kHeads; ++head) {
        HostBlock::Run(32, [&](int lane) { WriteOne(p, row, head, lane); });
      }
    }
    return pool;
  }
  // The pool as the CPU encodes pages that hold the rows.
  std::vector<std::byte> Expected() const {
    std::vector<float> pages = pages_;
    for (size_t r = 0; r < kTargets.size(); ++r) {
      if (kTargets[r] < 0) continue;
      const size_t to = static_cast<size_t>(kTargets[r]) * row_values();
      for (size_t i = 0; i < row_values(); ++i) pages[to + i] = rows_[r * row_values() + i];
    }
    return Encoded(pages);
  }
  int32_t refused() const { return refused_; }

 private:
  int dim() const { return codec_.shape().dim; }
  int64_t row_stride() const { return static_cast<int64_t>(row_values()) * (is_float_ ? 4 : 2) + gap_; }
  int32_t slot_stride() const { return kHeads * static_cast<int32_t>(codec_.block_bytes()) + gap_; }

  void WriteOne(const WriteParams& p, int row, int head, int lane) const {
    if (dim() == 64) return WriteRowWarp<HostWarp, 64>(p, p.side[0], row, head, lane);
    if (dim() == 128) return WriteRowWarp<HostWarp, 128>(p, p.side[0], row, head, lane);
    WriteRowWarp<HostWarp, 256>(p, p.side[0], row, head, lane);
  }
  AlignedBuffer<std::byte> SourceRows() const {
    AlignedBuffer<std::byte> rows(kTargets.size() * static_cast<size_t>(row_stride()));
    for (size_t i = 0; i < rows_.size(); ++i) {
      std::byte* to = rows.data() + static_cast<int64_t>(i / row_values()) * row_stride();
      if (is_float_) {
        reinterpret_cast<float*>(to)[i % row_values()] = rows_[i];
      } else {
        reinterpret_cast<uint16_t*>(to)[i % row_values()] = ToF16(rows_[i]).bits;
      }
    }
    return rows;
  }
  // rows: [slots][64][heads][dim].
  std::vector<std::byte> Encoded(const std::vector<float>& rows) const {
    std::vector<std::byte> pool(static_cast<size_t>(kSlots * slot_stride()), kOther);
    const DeviceFormat format = *DeviceFormatOf(codec_);
    const auto channels = static_cast<size_t>(dim());
    AlignedBuffer<float> page(kPageTokens * channels);
    AlignedBuffer<std::byte> block(codec_.block_bytes());
    for (int i = 0; i < kSlots * kHeads; ++i) {
      for (size_t t = 0; t < kPageTokens; ++t) {
        const size_t row =
            (static_cast<size_t>(i / kHeads) * kPageTokens + t) * kHeads + static_cast<size_t>(i % kHeads);
        std::copy_n(&rows[row * channels], channels, page.data() + t * channels);
      }
      EXPECT_TRUE(codec_.verbs.encode(*codec_.state, {}, page.data(), block.data()).ok());
      const auto bytes = static_cast<int32_t>(codec_.block_bytes());
      ToDeviceOrder(codec_, format, block.data(),
                    pool.data() + BlockOffset(i / kHeads, slot_stride(), i % kHeads, bytes));
    }
    return pool;
  }

  Codec codec_;
  bool is_float_;
  int gap_;
  std::mt19937 rng_{7};
  std::normal_distribution<float> normal_;
  std::vector<float> pages_, rows_;
  int32_t refused_ = 0;
};

TEST(WriteKernel, BytesAreThoseOfTheCpu) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const int dim : {64, 128, 256}) {
      for (const bool is_float : {false, true}) {
        Pages pages(side, dim, is_float, 0);
        EXPECT_TRUE(pages.Written() == pages.Expected()) << dim << is_float;
        EXPECT_EQ(pages.refused(), 0);
      }
    }
  }
}

TEST(WriteKernel, RowsAndSlotsWithSomethingElseBetween) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const bool is_float : {false, true}) {
      Pages pages(side, 128, is_float, 48);
      EXPECT_TRUE(pages.Written() == pages.Expected()) << is_float;
    }
  }
}

TEST(WriteKernel, RoundsAsTheCpuDoes) {
  Pages pages(Side::kKey, 64, true, 0);
  const float values[] = {1.0f + 0x1p-11f, 1.0f + 0x3p-11f, -0.0f,    65504.0f,   -65504.0f,
                          0x1p-24f,        0x1p-25f,        0x3p-26f, 0x1.8p-24f, -0x1.FFFp-15f};
  for (size_t i = 0; i < std::size(values); ++i) pages.row_value(i) = values[i];
  EXPECT_TRUE(pages.Written() == pages.Expected());
  EXPECT_EQ(pages.refused(), 0);
}

TEST(WriteKernel, RefusesWhatIsNoFiniteHalf) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Side side : {Side::kKey, Side::kValue}) {
    for (const bool is_float : {false, true}) {
      for (const float bad : {NAN, kInfinity, -kInfinity, 65520.0f, -1e30f}) {
        Pages pages(side, 64, is_float, 0);
        const size_t left_out = 3 * pages.row_values();  // of kTargets
        pages.row_value(left_out + 5) = bad;
        pages.Written();
        EXPECT_EQ(pages.refused(), 0) << bad;
        pages.row_value(pages.row_values() + 5) = bad;
        pages.Written();
        EXPECT_EQ(pages.refused(), 1) << bad;
      }
    }
  }
}

}  // namespace
}  // namespace kvant::cuda
