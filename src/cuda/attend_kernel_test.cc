// The attention kernels with queries, page tables and launches of all shapes.
#include "cuda/attend_test_util.h"

namespace kvant::cuda {
namespace {

TEST(AttendKernel, SeveralKvHeads) {
  EXPECT_LT((UniformError<64, 4>({.kv_heads = 3, .heads_per_kv = 2, .sealed = {2, 1}, .exact = {1, 0}})), kMaxError);
}

TEST(AttendKernel, AnyNumberOfQueryHeads) {
  for (const int heads : {1, 3, 8, 9, 16}) {
    EXPECT_LT((UniformError<64, 4>({.heads_per_kv = heads, .sealed = {2}, .exact = {1}})), kMaxError) << heads;
  }
}

TEST(AttendKernel, SeveralQueryRowsSeeWhatIsBeforeThem) {
  for (const int rows : {2, 4, 8}) {
    const Problem p = {.kv_heads = 2, .heads_per_kv = 3, .rows = rows, .sealed = {2, 0}, .exact = {1, 2}};
    EXPECT_LT((UniformError<64, 4>(p)), kMaxError) << rows;
    EXPECT_LT((Kernel<UniformKeys, UniformValues, 64, 4>::TileError(p, 2, 2)), kMaxError) << rows;
  }
  // Of the first page, no row but the last of them sees all.
  EXPECT_LT((LevelError<64, 4>({.rows = 5, .sealed = {3}, .exact = {1}})), kMaxError);
}

TEST(AttendKernel, SoftCapAndSinks) {
  EXPECT_LT((UniformError<64, 4>({.soft_cap = 3.0f, .query_scale = 4})), kMaxError);
  EXPECT_LT((UniformError<64, 4>({.sinks = true})), kMaxError);
  const Problem both = {
      .rows = 2, .soft_cap = 5.0f, .sinks = true, .sealed = {3, 0}, .exact = {1, 0}, .query_scale = 4};
  EXPECT_LT((UniformError<64, 4>(both)), kMaxError);
  EXPECT_LT((Kernel<UniformKeys, UniformValues, 64, 4>::TileError(both, 2, 2)), kMaxError);
}

TEST(AttendKernel, HidesRowsThatAreNotLive) {
  EXPECT_LT((UniformError<64, 4>({.first_live = 0x00000000000001FFu})), kMaxError);
  EXPECT_LT((LevelError<64, 2>({.first_live = 0xFFFFFFFFFFFF0000u})), kMaxError);
  EXPECT_LT((TrellisError<64, 2>({.first_live = 0x000000000001FF00u})), kMaxError);
  // Sequence 0 has pages without a visible row, at the start of an item and alone in one.
  EXPECT_LT((UniformError<64, 4>({.sealed = {3}, .exact = {1}, .pages_per_item = 1, .first_live = 0})), kMaxError);
  EXPECT_LT((UniformError<64, 4>({.sealed = {3}, .exact = {1}, .pages_per_item = 3, .first_live = 0})), kMaxError);
}

TEST(AttendKernel, ASharpSoftmaxAndManyPages) {
  EXPECT_LT((UniformError<64, 4>({.sealed = {24}, .exact = {3}, .pages_per_item = 9, .query_scale = 4})), kMaxError);
  EXPECT_LT((LevelError<64, 4>({.sealed = {24}, .exact = {3}, .pages_per_item = 5, .query_scale = 4})), kMaxError);
}

TEST(AttendKernel, FixedItemsGiveTheSameBitsWithAnyCapacity) {
  using Uniform = Kernel<UniformKeys, UniformValues, 64, 4>;
  const Problem p = {.sealed = {5, 2}, .exact = {1, 2}};
  Problem larger = p;
  larger.spare_pages = 7;
  EXPECT_EQ(Uniform::Output(p), Uniform::Output(larger));
}

TEST(AttendKernel, ASequenceWithoutRowsGivesZeros) {
  EXPECT_LT((UniformError<64, 4>({.sealed = {2, 0}, .exact = {1, 0}})), kMaxError);
}

TEST(AttendKernel, SlotsWithSomethingElseBetween) {
  const Problem p = {.kv_heads = 2, .sealed = {5, 2}, .exact = {1, 2}, .gap = 4096 + 16};
  EXPECT_LT((UniformError<64, 4>(p)), kMaxError);
  EXPECT_LT((LevelError<64, 2>(p)), kMaxError);
  EXPECT_LT((TrellisError<64, 2>(p)), kMaxError);
  EXPECT_LT((Kernel<UniformKeys, UniformValues, 64, 4>::TileError(p, 2, 2)), kMaxError);
  EXPECT_LT((Kernel<UniformKeys, UniformValues, 256, 4>::TileError(p, 2, 2)), kMaxError);
}

TEST(AttendTile, OneLaunchGivesTheSame) {
  const Problem uniform = {.codec = "int", .options = "bits=4", .kv_heads = 2, .sealed = {7, 0, 1}, .exact = {1, 2, 0}};
  using Uniform = Kernel<UniformKeys, UniformValues, 64, 4>;
  EXPECT_LT(Uniform::TileError(uniform, 1, 1), kMaxError);
  EXPECT_LT(Uniform::TileError(uniform, 2, 3), kMaxError);
  EXPECT_LT(Uniform::TileError(uniform, 11, 1), kMaxError);
  const Problem levels = {.codec = "decoquant", .options = "bits=2", .sealed = {5, 2}, .exact = {2, 1}};
  EXPECT_LT((Kernel<LevelKeys, LevelValues, 64, 2>::TileError(levels, 2, 2)), kMaxError);
  const Problem trellis = {.codec = "decoquant", .options = "bits=3,code=trellis", .sealed = {5, 2}, .exact = {2, 1}};
  EXPECT_LT((Kernel<TrellisKeys, TrellisValues, 128, 3>::TileError(trellis, 3, 2)), kMaxError);
}

TEST(AttendTile, ChunksLeaveShortSequencesFewerBlocks) {
  const Problem p = {.chunk = 4, .sealed = {9, 0, 1, 5}, .exact = {1, 0, 0, 2}};
  EXPECT_LT((Kernel<UniformKeys, UniformValues, 64, 4>::TileError(p, 4, 2)), kMaxError);
}

TEST(AttendTile, AnyHeadsAndHiddenRows) {
  using Uniform = Kernel<UniformKeys, UniformValues, 64, 4>;
  for (const int heads : {1, 8, 9}) {
    EXPECT_LT(Uniform::TileError({.heads_per_kv = heads, .sealed = {3}, .exact = {1}}, 2, 2), kMaxError) << heads;
  }
  for (const uint64_t live : {uint64_t{0}, uint64_t{0x1FF}, uint64_t{0xFFFF000000000000}}) {
    EXPECT_LT(Uniform::TileError({.sealed = {3}, .exact = {2}, .first_live = live}, 2, 2), kMaxError) << live;
  }
  EXPECT_LT(Uniform::TileError({.sealed = {2, 0}, .exact = {1, 0}}, 3, 1), kMaxError);
  EXPECT_LT((Kernel<UniformKeys, UniformValues, 256, 4>::TileError({.sealed = {2}, .exact = {1}}, 2, 2)), kMaxError);
}

}  // namespace
}  // namespace kvant::cuda
