// The kernels that encode and decode on the host (simt_host.h) against the CPU codecs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/parts/trellis.h"
#include "codec/registry.h"
#include "cuda/block_order.h"
#include "cuda/decode_warp.h"
#include "cuda/encode_levels.h"
#include "cuda/encode_trellis.h"
#include "cuda/simt_host.h"
#include "cuda/sketch_encode_warp.h"
#include "cuda/sketch_tables.h"

namespace kvant::cuda {
namespace {

constexpr int kHeads = 2;
constexpr int kPages = 2;

Codec Make(const std::string& name, const std::string& options, Side side, int dim) {
  auto codec = MakeCodec(name, *ParseCodecOptions(*FindCodec(name), options), {.side = side, .dim = dim});
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *codec;
}

// Where pages go in a pool.
struct Slots {
  int32_t of_page[kPages] = {1, 0};
  int gap = 0;  ///< bytes of something else between two slots
};

// Pages of random rows, and a pool.
class Pages {
 public:
  Pages(const std::string& name, const std::string& options, Side side, int dim, float scale = 1.0f,
        const Slots& slots = {})
      : codec_(Make(name, options, side, dim)),
        format_(*DeviceFormatOf(codec_)),
        slots_(slots),
        rows_(static_cast<size_t>(kPages * kPageTokens * kHeads * dim)),
        decoded_(rows_.size(), kUntouched),
        pool_(static_cast<size_t>(kPages * stride())) {
    std::mt19937 rng(5);
    std::normal_distribution<float> normal;
    for (uint16_t& x : rows_) x = ToF16(scale * normal(rng) + 0.2f).bits;
    std::fill(pool_.span().begin(), pool_.span().end(), kOther);
  }

  template <CodeKind kKind, int kDim, int kBits, int kRows>
  void Encode() {
    EncodeParams p = {.rows = rows_.data(),
                      .slots = slots_.of_page,
                      .pool = pool_.data(),
                      .slot_stride = stride(),
                      .refused = &refused_,
                      .pages = kPages,
                      .kv_heads = kHeads,
                      .is_value = is_value(),
                      .offsets = OffsetsOf(codec_, format_),
                      .step = format_.step,
                      .levels = {},
                      .thresholds = {},
                      .unbiased = format_.unbiased,
                      .costs = {},
                      .sketch = format_.sketch};
    std::ranges::copy(format_.levels, p.levels);
    std::ranges::copy(format_.thresholds, p.thresholds);
    AlignedBuffer<std::byte> tables;
    if (kKind == CodeKind::kSketch) tables = MakeSketchTables(kDim);
    p.sketch_tables = tables.data();
    ForEachBlock([&](int page, int head) {
      if constexpr (kKind == CodeKind::kSketch) {
        HostBlock::Run(32, [&](int lane) { SketchEncoder<HostWarp, kDim>(p, page, head, lane).Encode(); });
      } else if constexpr (kKind == CodeKind::kTrellis) {
        p.costs = CostsOf(format_);
        auto space = std::make_unique<TrellisSpace<kDim>>();
        HostBlock::Run(
            kDim, [&](int thread) { EncodeTrellisThread<HostWarp, kDim, kBits>(p, page, head, thread, space.get()); });
      } else if constexpr (kKind == CodeKind::kLevels) {
        auto space = std::make_unique<LevelSpace<kDim>>();
        HostBlock::Run(kLevelThreads, [&](int thread) {
          LevelEncoder<HostWarp, kDim, kBits>(p, thread, space.get()).Encode(page, head);
        });
      } else {
        EncodeSpace<kDim, kRows> space;
        HostBlock::Run(32, [&](int lane) {
          if constexpr (kKind == CodeKind::kExact) {
            StoreExactWarp<HostWarp, kDim>(p, page, head, lane);
          } else {
            EncodeWarp<HostWarp, kDim, kBits, kRows>(p, page, head, lane, &space);
          }
        });
      }
    });
  }
  template <CodeKind kKind, int kDim, int kBits>
  void Decode() {
    DecodeParams p = {.pool = pool_.data(),
                      .slot_stride = stride(),
                      .slots = slots_.of_page,
                      .rows = decoded_.data(),
                      .pages = kPages,
                      .kv_heads = kHeads,
                      .is_value = is_value(),
                      .hadamard = format_.hadamard,
                      .offsets = OffsetsOf(codec_, format_),
                      .param_rows = format_.scales.rows,
                      .step = format_.step,
                      .levels = {}};
    std::ranges::copy(format_.levels, p.levels);
    using WarpDecoder = Decoder<HostWarp, kKind, kDim, kBits>;
    AlignedBuffer<std::byte> table(std::max(1, WarpDecoder::Table::kBytes));
    if constexpr (WarpDecoder::Table::kBytes > 0)
      WarpDecoder::Table::template Fill<HostWarp>(p.levels, 0, 1, table.data());
    RowSpace<kDim> space;
    ForEachBlock([&](int page, int head) {
      HostBlock::Run(32, [&](int lane) {
        const WarpDecoder decoder(p, table.data(), &space, lane);
        for (int unit = 0; unit < kUnits; ++unit) decoder.Decode({page, head, unit, lane});
      });
    });
  }

  // Share of the pool's bytes that differ from the CPU's; nothing else may have been written.
  double Mismatch() {
    AlignedBuffer<float> floats(block_values());
    AlignedBuffer<std::byte> block(codec_.block_bytes()), want(pool_.size());
    std::fill(want.span().begin(), want.span().end(), kOther);
    ForEachBlock([&](int page, int head) {
      if (slots_.of_page[page] < 0) return;
      ForEachValue(page, head, [&](size_t i, size_t at) { floats[i] = kvant::ToFloat(F16{rows_[at]}); });
      EXPECT_TRUE(codec_.verbs.encode(*codec_.state, {}, floats.data(), block.data()).ok());
      ToDeviceOrder(codec_, format_, block.data(), want.data() + BlockAt(page, head));
    });
    size_t different = 0;
    for (size_t i = 0; i < pool_.size(); ++i) different += pool_[i] != want[i];
    return static_cast<double>(different) / static_cast<double>(pool_.size());
  }
  // Largest difference from what the CPU decodes, in units of fp16's last place there.
  double DecodeError() {
    double worst = 0.0;
    AlignedBuffer<float> floats(block_values());
    AlignedBuffer<std::byte> block(codec_.block_bytes());
    ForEachBlock([&](int page, int head) {
      if (slots_.of_page[page] < 0) {
        ForEachValue(page, head, [&](size_t, size_t at) { EXPECT_EQ(decoded_[at], kUntouched); });
        return;
      }
      FromDeviceOrder(codec_, format_, pool_.data() + BlockAt(page, head), block.data());
      EXPECT_TRUE(codec_.verbs.decode(*codec_.state, {}, block.data(), floats.data()).ok());
      ForEachValue(page, head, [&](size_t i, size_t at) {
        const double want = static_cast<double>(floats[i]);
        const double unit = std::max(std::abs(want), 0.25) / 1024;
        worst = std::max(worst, std::abs(static_cast<double>(kvant::ToFloat(F16{decoded_[at]})) - want) / unit);
      });
    });
    return worst;
  }
  int32_t refused() const { return refused_; }

 private:
  static constexpr uint16_t kUntouched = 0x7E7E;
  static constexpr std::byte kOther{0xA5};

  bool is_value() const { return codec_.shape().side == Side::kValue; }
  size_t block_values() const { return static_cast<size_t>(kPageTokens * codec_.shape().dim); }
  int stride() const { return kHeads * static_cast<int>(codec_.block_bytes()) + slots_.gap; }
  int64_t BlockAt(int page, int head) const {
    return BlockOffset(slots_.of_page[page], stride(), head, static_cast<int>(codec_.block_bytes()));
  }
  template <typename Visit>
  static void ForEachBlock(Visit visit) {
    for (int page = 0; page < kPages; ++page) {
      for (int head = 0; head < kHeads; ++head) visit(page, head);
    }
  }
  // Index in the block, index in the rows of the pages.
  template <typename Visit>
  void ForEachValue(int page, int head, Visit visit) const {
    const auto dim = static_cast<size_t>(codec_.shape().dim);
    for (size_t i = 0; i < block_values(); ++i) {
      const size_t token = static_cast<size_t>(page * kPageTokens) + i / dim;
      visit(i, (token * kHeads + static_cast<size_t>(head)) * dim + i % dim);
    }
  }

  Codec codec_;
  DeviceFormat format_;
  Slots slots_;
  std::vector<uint16_t> rows_, decoded_;
  AlignedBuffer<std::byte> pool_;
  int32_t refused_ = 0;
};

// Share of bytes that differ from the CPU's; what they decode to is that of the CPU up to two roundings.
template <CodeKind kKind, int kDim, int kBits, int kRows = 1>
double Mismatch(const std::string& name, const std::string& options, Side side) {
  Pages pages(name, options, side, kDim);
  pages.Encode<kKind, kDim, kBits, kRows>();
  pages.Decode<kKind, kDim, kBits>();
  EXPECT_LE(pages.DecodeError(), kKind == CodeKind::kExact ? 0.0 : 1.0) << name << ":" << options;
  EXPECT_EQ(pages.refused(), 0);
  return pages.Mismatch();
}

TEST(EncodeKernel, UniformBytesAreThoseOfTheCpu) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 8>("int", "bits=8", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 4>("int", "bits=4", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 3>("int", "bits=3", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 64, 2>("int", "bits=2", side)), 0.0);
  }
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 256, 4>("int", "bits=4", Side::kKey)), 0.0);
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 256, 4, 2>("int", "bits=4", Side::kValue)), 0.0);
}

TEST(EncodeKernel, LevelBytesAreThoseOfTheCpuUpToRounding) {
  const double allowed = FindCodec("decoquant")->max_code_mismatch;
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_LE((Mismatch<CodeKind::kLevels, 128, 4>("decoquant", "bits=4", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 128, 3>("decoquant", "bits=3", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 64, 2>("decoquant", "bits=2,scale=ls", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 64, 4>("turboquant", "", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 64, 3>("decoquant", "bits=3,code=uniform", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 256, 4>("decoquant", "bits=4", side)), 2 * allowed);
  }
}

TEST(EncodeKernel, NoTwoBordersShareABin) {
  for (const char* code : {"lm", "uniform"}) {
    for (const int bits : {2, 3, 4}) {
      const Codec codec = Make("decoquant", "bits=" + std::to_string(bits) + ",code=" + code, Side::kKey, 64);
      const DeviceFormat format = *DeviceFormatOf(codec);
      ASSERT_TRUE(format.encodable);
      const int count = (1 << (bits - 1)) - 1;
      const BinMap map(format.thresholds[count - 1]);
      uint32_t last = map.Bin<HostWarp>(0.0f);
      for (int i = 0; i < count; ++i) {
        const uint32_t bin = map.Bin<HostWarp>(format.thresholds[i]);
        EXPECT_GT(bin, last) << code << " " << bits;
        EXPECT_LT(map.Bin<HostWarp>(-format.thresholds[i]),
                  map.Bin<HostWarp>(i == 0 ? 0.0f : -format.thresholds[i - 1]));
        last = bin;
      }
      EXPECT_LT(last - map.Bin<HostWarp>(-1e30f), static_cast<uint32_t>(BinMap::kLast));
    }
  }
}

template <int kDim>
double SketchMismatch(const std::string& options) {
  Pages pages("qjl", options, Side::kKey, kDim);
  pages.Encode<CodeKind::kSketch, kDim, 1, 1>();
  EXPECT_EQ(pages.refused(), 0);
  return pages.Mismatch();
}

TEST(EncodeKernel, SketchBytesAreThoseOfTheCpuUpToRounding) {
  const double allowed = 8 * FindCodec("qjl")->max_code_mismatch;  // a byte has eight signs
  EXPECT_LE(SketchMismatch<128>(""), allowed);
  EXPECT_LE(SketchMismatch<128>("first_layers=0"), allowed);
  EXPECT_LE(SketchMismatch<128>("first_layers=0,outliers=0"), allowed);
  EXPECT_LE(SketchMismatch<64>("first_layers=0"), allowed);
}

TEST(EncodeKernel, ExactRowsAreMoved) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_EQ((Mismatch<CodeKind::kExact, 128, 16>("raw", "", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kExact, 64, 16>("raw", "", side)), 0.0);
  }
}

TEST(EncodeKernel, GroupsOfTokensAndChannels) {
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 2, 2>("kivi", "bits=2", Side::kKey)), 0.0);
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 2, 4>("kivi", "bits=2", Side::kValue)), 0.0);
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 64, 4, 2>("kivi", "bits=4", Side::kValue)), 0.0);
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 4, 2>("kivi", "bits=4,group=64", Side::kValue)), 0.0);
}

TEST(EncodeKernel, TrellisPathsAreThoseOfTheCpuUpToRounding) {
  const double allowed = FindCodec("decoquant")->max_code_mismatch;
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_LE((Mismatch<CodeKind::kTrellis, 128, 2>("decoquant", "bits=2,code=trellis", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kTrellis, 128, 3>("decoquant", "bits=3,code=trellis", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kTrellis, 64, 2>("decoquant", "bits=2,code=trellis,scale=ls", side)), 2 * allowed);
  }
}

TEST(EncodeKernel, KnowsTheTrellis) {
  EXPECT_EQ(kWindows, kTrellisWindows);
  for (int place = 0; place < kPageTokens; ++place) {
    EXPECT_EQ(TokenOfPlace(place), TrellisToken(place));
    EXPECT_EQ(PlaceOfToken(TokenOfPlace(place)), place);
  }
  for (const int bits : {2, 3}) EXPECT_EQ(kTicksPerStep, static_cast<float>(TrellisTicksPerStep(bits)));
  EXPECT_EQ(kMostTicks, kTicksPerStep * kMaxTrellisSteps);
}

template <CodeKind kKind, int kDim, int kBits>
void ExpectOnlyOnePage(const std::string& name, const std::string& options, Side side) {
  Pages pages(name, options, side, kDim, 1.0f, {.of_page = {-1, 1}, .gap = 48});
  pages.Encode<kKind, kDim, kBits, 1>();
  EXPECT_LE(pages.Mismatch(), 8 * FindCodec(name)->max_code_mismatch) << name << ":" << options;
  if constexpr (kKind != CodeKind::kSketch) {
    pages.Decode<kKind, kDim, kBits>();
    EXPECT_LE(pages.DecodeError(), 1.0) << name << ":" << options;
  }
}

TEST(EncodeKernel, StridesAndPagesThatAreLeftOut) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    ExpectOnlyOnePage<CodeKind::kExact, 64, 16>("raw", "", side);
    ExpectOnlyOnePage<CodeKind::kUniform, 64, 4>("int", "bits=4", side);
    ExpectOnlyOnePage<CodeKind::kLevels, 64, 4>("decoquant", "bits=4", side);
    ExpectOnlyOnePage<CodeKind::kTrellis, 64, 2>("decoquant", "bits=2,code=trellis", side);
  }
  ExpectOnlyOnePage<CodeKind::kSketch, 64, 1>("qjl", "first_layers=0", Side::kKey);
}

TEST(EncodeKernel, ReportsScalesThatWeightsCannotTake) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    Pages pages("int", "bits=2", side, 64, 5000.0f);
    pages.Encode<CodeKind::kUniform, 64, 2, 1>();
    EXPECT_EQ(pages.Mismatch(), 0.0);
    EXPECT_EQ(pages.refused(), side == Side::kValue ? 1 : 0);
  }
}

}  // namespace
}  // namespace kvant::cuda
