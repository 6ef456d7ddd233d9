#include "codec/parts/page_scalars.h"

#include <gtest/gtest.h>

#include <limits>

#include "base/aligned_buffer.h"
#include "codec/parts/strip.h"

namespace kvant {
namespace {

TEST(PageScalarsTest, ScalesAreStoredOrRefused) {
  AlignedBuffer<float> scales(64);
  AlignedBuffer<F16> stored(64);
  scales[3] = 0.25f;
  ASSERT_TRUE(StoreTokenScales("name", scales.data(), stored.data()).ok());
  EXPECT_EQ(stored[3].bits, 0x3400);
  EXPECT_TRUE(CheckTokenScales("name", stored.data()).ok());
  scales[5] = 1e6f;
  EXPECT_EQ(StoreTokenScales("name", scales.data(), stored.data()).message(),
            "name: scale 1e+06 of token 5 does not fit fp16");
  for (const uint16_t bad : {0x7C00, 0x7E01, 0x8000}) {  // infinite, not a number, negative
    stored[5] = {bad};
    EXPECT_EQ(CheckTokenScales("name", stored.data()).code(), StatusCode::kCorruption) << bad;
  }
}

TEST(PageScalarsTest, MeansLeaveRowsAndComeBackThroughQueriesAndWeights) {
  constexpr int kDim = 16;
  AlignedBuffer<float> rows(64 * kDim), means(kDim), queries(kDim), weights(64), acc(kDim);
  for (size_t t = 0; t < 64; ++t) rows[t * kDim + 2] = t < 32 ? 3.0f : 1.0f;
  AlignedBuffer<F16> stored(kDim);
  StorePageMeans(rows.data(), kDim, stored.data(), means.data());
  EXPECT_EQ(stored[2].bits, 0x4000);
  EXPECT_EQ(means[2], 2.0f);
  EXPECT_EQ(means[1], 0.0f);

  Strip strip;
  LoadStrip(rows.data(), kDim, 16, kDim, strip.values);
  SubtractPageMeans(means.data(), kDim, strip.values);
  EXPECT_EQ(strip.values[2 * kStripRows + 7], 1.0f);

  queries[2] = 5.0f;
  float bias = 0.0f;
  ScorePageMeans(stored.data(), kDim, queries.data(), 1, &bias);
  EXPECT_EQ(bias, 10.0f);
  weights[9] = 0.5f, weights[60] = 0.25f;
  AccumulatePageMeans(stored.data(), kDim, weights.data(), 1, acc.data(), kDim);
  EXPECT_EQ(acc[2], 1.5f);

  EXPECT_TRUE(CheckPageMeans("name", stored.data(), kDim).ok());
  stored[4] = {0xFC00};
  EXPECT_EQ(CheckPageMeans("name", stored.data(), kDim).message(), "name: mean 4 is not valid");
}

}  // namespace
}  // namespace kvant
