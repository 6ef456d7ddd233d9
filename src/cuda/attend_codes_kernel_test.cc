// The attention kernels with all kinds of codes and head sizes.
#include "codec/parts/hadamard.h"
#include "cuda/attend_test_util.h"
#include "cuda/grouped_values.h"
#include "cuda/sketch_readers.h"

namespace kvant::cuda {
namespace {

TEST(AttendCodes, UniformCodesOfAllWidths) {
  EXPECT_LT((UniformError<128, 8>({})), kMaxError);
  EXPECT_LT((UniformError<128, 4>({})), kMaxError);
  EXPECT_LT((UniformError<128, 3>({})), kMaxError);
  EXPECT_LT((UniformError<128, 2>({})), kMaxError);
}

TEST(AttendCodes, LevelCodesOfAllWidths) {
  EXPECT_LT((LevelError<128, 4>({})), kMaxError);
  EXPECT_LT((LevelError<128, 3>({})), kMaxError);
  EXPECT_LT((LevelError<128, 2>({})), kMaxError);
}

TEST(AttendCodes, TrellisSymbolsOfAllWidths) {
  EXPECT_LT((TrellisError<128, 3>({})), kMaxError);
  EXPECT_LT((TrellisError<128, 2>({})), kMaxError);
  EXPECT_LT((TrellisError<64, 3>({})), kMaxError);
  EXPECT_LT((TrellisError<64, 2>({})), kMaxError);
}

TEST(AttendCodes, TrellisWithFewColumns) {
  using Paired2 = Kernel<PairedTrellisKeys, PairedTrellisValues, 128, 2>;
  using Paired3 = Kernel<PairedTrellisKeys, PairedTrellisValues, 64, 3>;
  for (const int heads : {1, 3, 4}) {
    const Problem p = {.codec = "decoquant", .options = "bits=2,code=trellis", .heads_per_kv = heads};
    EXPECT_LT(Paired2::Error(p), kMaxError) << heads;
    EXPECT_LT(Paired2::TileError(p, 3, 2), kMaxError) << heads;
  }
  const Problem masked = {.codec = "decoquant",
                          .options = "bits=3,code=trellis",
                          .heads_per_kv = 2,
                          .rows = 2,
                          .soft_cap = 4.0f,
                          .first_live = 0x8000F0000001FF01u};
  EXPECT_LT(Paired3::Error(masked), kMaxError);
  EXPECT_LT(Paired3::TileError(masked, 2, 2), kMaxError);
}

template <class W, int kDim, int kBits>
using PlainLevelKeys = LevelKeys<W, kDim, kBits, false>;
template <class W, int kDim, int kBits>
using GroupedKeys = UniformKeys<W, kDim, kBits, 32>;
template <class W, int kDim, int kBits>
using SmallGroupValues = GroupedValues<W, kDim, kBits, 32>;
template <class W, int kDim, int kBits>
using HalvedValues = GroupedValues<W, kDim, kBits, 64>;

TEST(AttendCodes, LevelsWithoutPageMeans) {
  EXPECT_LT((Kernel<PlainLevelKeys, LevelValues, 128, 3>::Error({.codec = "turboquant", .options = "bits=3"})),
            kMaxError);
  EXPECT_LT((Kernel<PlainLevelKeys, LevelValues, 64, 2>::Error({.codec = "turboquant", .options = "bits=2"})),
            kMaxError);
  EXPECT_LT((Kernel<PlainLevelKeys, LevelValues, 64, 4>::Error({.codec = "decoquant", .options = "mean=off"})),
            kMaxError);
}

TEST(AttendCodes, GroupsOfTokensAndChannels) {
  EXPECT_LT((Kernel<GroupedKeys, SmallGroupValues, 128, 2>::Error({.codec = "kivi", .options = "bits=2"})), kMaxError);
  EXPECT_LT((Kernel<GroupedKeys, SmallGroupValues, 64, 4>::Error({.codec = "kivi", .options = "bits=4"})), kMaxError);
  EXPECT_LT((Kernel<UniformKeys, HalvedValues, 128, 4>::Error({.codec = "kivi", .options = "bits=4,group=64"})),
            kMaxError);
}

TEST(AttendCodes, KeysAndValuesOfDifferentWidths) {
  EXPECT_LT((Kernel<UniformKeys, UniformValues, 128, 4, 2>::Error(
                {.codec = "int", .options = "bits=4", .value_options = "bits=2", .sealed = {2}, .exact = {1}})),
            kMaxError);
  EXPECT_LT((Kernel<LevelKeys, LevelValues, 128, 4, 2>::Error(
                {.codec = "decoquant", .options = "bits=4", .value_options = "bits=2", .sealed = {2}, .exact = {1}})),
            kMaxError);
}

TEST(AttendCodes, OtherHeadSizes) {
  EXPECT_LT((UniformError<64, 8>({})), kMaxError);
  EXPECT_LT((UniformError<64, 3>({})), kMaxError);
  EXPECT_LT((UniformError<64, 2>({})), kMaxError);
  EXPECT_LT((UniformError<256, 4>({})), kMaxError);
  EXPECT_LT((UniformError<256, 3>({})), kMaxError);
  EXPECT_LT((LevelError<64, 4>({})), kMaxError);
  EXPECT_LT((LevelError<64, 3>({})), kMaxError);
  EXPECT_LT((LevelError<64, 2>({})), kMaxError);
  EXPECT_LT((LevelError<256, 3>({})), kMaxError);
}

// kBits says which sketch: of outliers as well, or not.
template <class W, int kDim, int kBits>
using PlainSketchKeys = SketchKeys<W, kDim, kBits>;
template <class W, int kDim, int kBits>
using SplitSketchKeys = SketchKeys<W, kDim, kBits, kBits == 256 ? 256 : 128>;

template <template <class, int, int> class Keys, int kDim, int kBits>
double SketchError(Problem p, const char* options) {
  p.codec = "qjl";
  p.options = options;
  p.value_options = "";
  using Subject = Kernel<Keys, SmallGroupValues, kDim, kBits, 2>;
  return std::max(Subject::Error(p), Subject::TileError(p, 2, 3));
}

TEST(AttendCodes, SketchedKeys) {
  for (const int heads : {4, 1, 5, 8}) {
    const Problem p = {.heads_per_kv = heads, .sealed = {3, 0}, .exact = {1, 1}};
    EXPECT_LT((SketchError<PlainSketchKeys, 128, 256>(p, "outliers=0,first_layers=0")), kMaxError) << heads;
  }
  EXPECT_LT((SketchError<PlainSketchKeys, 128, 512>({}, "outliers=0")), kMaxError);
  EXPECT_LT((SketchError<PlainSketchKeys, 64, 256>({.heads_per_kv = 9, .sealed = {2}, .exact = {1}},
                                                   "outliers=0,first_layers=0")),
            kMaxError);
}

TEST(AttendCodes, SketchesWithOutlierChannels) {
  for (const int heads : {3, 8}) {
    const Problem p = {.heads_per_kv = heads, .sealed = {2, 1}, .exact = {1, 1}, .first_live = 0xFFFF0000FFFF0000u};
    EXPECT_LT((SketchError<SplitSketchKeys, 128, 256>(p, "first_layers=0")), kMaxError) << heads;
    EXPECT_LT((SketchError<SplitSketchKeys, 128, 512>(p, "")), kMaxError) << heads;
  }
}

TEST(AttendCodes, MapsAsTheCodecsDo) {
  for (int i = 0; i < 256; ++i) EXPECT_EQ(DeviceHadamardSign(i), HadamardSign(i));
}

}  // namespace
}  // namespace kvant::cuda
