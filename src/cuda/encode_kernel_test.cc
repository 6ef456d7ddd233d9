// The encode kernels on the host (simt_host.h) against the CPU codecs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/registry.h"
#include "cuda/block_order.h"
#include "cuda/encode_warp.h"
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

BlockOffsets OffsetsOf(const Codec& codec, const DeviceFormat& f) {
  return {static_cast<int32_t>(codec.block_bytes()), static_cast<int32_t>(f.codes_byte_ofs),
          static_cast<int32_t>(f.scales.byte_ofs),
          f.shifts.axis == ParamAxis::kNone ? -1 : static_cast<int32_t>(f.shifts.byte_ofs)};
}

// Share of bytes that differ from the CPU's.
template <CodeKind kKind, int kDim, int kBits>
double Mismatch(const std::string& name, const std::string& options, Side side, float scale = 1.0f,
                int32_t* refused = nullptr) {
  const Codec codec = Make(name, options, side, kDim);
  const DeviceFormat format = *DeviceFormatOf(codec);
  std::mt19937 rng(5);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> rows(kPages * kPageTokens * kHeads * kDim);
  for (uint16_t& x : rows) x = ToF16(scale * normal(rng) + 0.2f).bits;
  const std::vector<int32_t> slots = {1, 0};
  AlignedBuffer<std::byte> pool(kPages * kHeads * codec.block_bytes());
  int32_t flag = 0;
  EncodeParams p = {.rows = rows.data(),
                    .slots = slots.data(),
                    .pool = pool.data(),
                    .refused = &flag,
                    .pages = kPages,
                    .kv_heads = kHeads,
                    .is_value = side == Side::kValue,
                    .offsets = OffsetsOf(codec, format),
                    .step = format.step,
                    .levels = {},
                    .thresholds = {},
                    .unbiased = format.unbiased,
                    .sketch = format.sketch};
  AlignedBuffer<std::byte> tables;
  if (kKind == CodeKind::kSketch) tables = MakeSketchTables(kDim);
  p.sketch_tables = tables.data();
  std::copy_n(format.levels, 16, p.levels);
  std::copy_n(format.thresholds, 7, p.thresholds);
  size_t different = 0;
  AlignedBuffer<float> floats(kPageTokens * kDim);
  AlignedBuffer<std::byte> block(codec.block_bytes()), want(codec.block_bytes());
  for (int page = 0; page < kPages; ++page) {
    for (int head = 0; head < kHeads; ++head) {
      EncodeSpace<kDim> space;
      HostBlock::Run(32, [&](int lane) {
        if constexpr (kKind == CodeKind::kExact) {
          StoreExactWarp<HostWarp, kDim>(p, page, head, lane);
        } else if constexpr (kKind == CodeKind::kSketch) {
          SketchEncoder<HostWarp, kDim>(p, page, head, lane).Encode();
        } else {
          EncodeWarp<HostWarp, kKind, kDim, kBits>(p, page, head, lane, &space);
        }
      });
      for (int i = 0; i < kPageTokens * kDim; ++i) {
        const int at = ((page * kPageTokens + i / kDim) * kHeads + head) * kDim + i % kDim;
        floats[static_cast<size_t>(i)] = kvant::ToFloat(F16{rows[static_cast<size_t>(at)]});
      }
      EXPECT_TRUE(codec.verbs.encode(*codec.state, {}, floats.data(), block.data()).ok());
      ToDeviceOrder(codec, format, block.data(), want.data());
      const std::byte* got =
          pool.data() + static_cast<size_t>(slots[static_cast<size_t>(page)] * kHeads + head) * codec.block_bytes();
      for (size_t i = 0; i < codec.block_bytes(); ++i) different += got[i] != want[i];
    }
  }
  if (refused) *refused = flag;
  return static_cast<double>(different) / static_cast<double>(pool.size());
}

TEST(EncodeKernel, UniformBytesAreThoseOfTheCpu) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 8>("int", "bits=8", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 4>("int", "bits=4", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 128, 3>("int", "bits=3", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 64, 2>("int", "bits=2", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kUniform, 256, 4>("int", "bits=4", side)), 0.0);
  }
}

TEST(EncodeKernel, LevelBytesAreThoseOfTheCpuUpToRounding) {
  const double allowed = FindCodec("decoquant")->max_code_mismatch;
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_LE((Mismatch<CodeKind::kLevels, 128, 4>("decoquant", "bits=4", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 128, 3>("decoquant", "bits=3", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 64, 2>("decoquant", "bits=2,scale=ls", side)), 2 * allowed);
    EXPECT_LE((Mismatch<CodeKind::kLevels, 64, 4>("turboquant", "", side)), 2 * allowed);
  }
}

TEST(EncodeKernel, SketchBytesAreThoseOfTheCpuUpToRounding) {
  const double allowed = 8 * FindCodec("qjl")->max_code_mismatch;  // a byte has eight signs
  EXPECT_LE((Mismatch<CodeKind::kSketch, 128, 1>("qjl", "", Side::kKey)), allowed);
  EXPECT_LE((Mismatch<CodeKind::kSketch, 128, 1>("qjl", "first_layers=0", Side::kKey)), allowed);
  EXPECT_LE((Mismatch<CodeKind::kSketch, 128, 1>("qjl", "first_layers=0,outliers=0", Side::kKey)), allowed);
  EXPECT_LE((Mismatch<CodeKind::kSketch, 64, 1>("qjl", "first_layers=0", Side::kKey)), allowed);
}

TEST(EncodeKernel, ExactRowsAreMoved) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_EQ((Mismatch<CodeKind::kExact, 128, 16>("raw", "", side)), 0.0);
    EXPECT_EQ((Mismatch<CodeKind::kExact, 64, 16>("raw", "", side)), 0.0);
  }
}

TEST(EncodeKernel, ReportsScalesThatWeightsCannotTake) {
  int32_t refused = 0;
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 64, 2>("int", "bits=2", Side::kValue, 5000.0f, &refused)), 0.0);
  EXPECT_EQ(refused, 1);
  EXPECT_EQ((Mismatch<CodeKind::kUniform, 64, 2>("int", "bits=2", Side::kKey, 5000.0f, &refused)), 0.0);
  EXPECT_EQ(refused, 0);
}

}  // namespace
}  // namespace kvant::cuda
