#include "calibrate/collector.h"

#include <gtest/gtest.h>

#include <cmath>

namespace kvant {
namespace {

constexpr int kDim = 16;
constexpr int kWidth = 2 * kDim;  // two KV heads

const std::vector<LayerShape> kLayers(2, {.kv_heads = 2, .k_dim = kDim, .v_dim = kDim});

// Rows that say where they come from: [count, width], value = pos + channel / 64.
std::vector<float> Rows(int64_t first_pos, int64_t count, int width) {
  std::vector<float> rows;
  for (int64_t t = 0; t < count; ++t) {
    for (int c = 0; c < width; ++c) rows.push_back(static_cast<float>(first_pos + t) + static_cast<float>(c) / 64);
  }
  return rows;
}

void AddAll(Collector& collector, RowKind kind, int layer, int64_t first_pos, int64_t count, int width) {
  collector.Add(kind, layer, count, width, Rows(first_pos, count, width).data(), static_cast<size_t>(width));
}

TEST(Collector, KeepsWholePagesButTheFirstOfAWindow) {
  Collector collector({.layers = kLayers});
  collector.Expect(8);
  for (int window = 0; window < 2; ++window) {
    for (int64_t pos = 0; pos < 256; pos += 128) {
      collector.BeginBatch(pos, 128);
      AddAll(collector, RowKind::kValue, 1, pos, 100, kWidth);  // in two parts
      AddAll(collector, RowKind::kValue, 1, pos + 100, 28, kWidth);
    }
  }
  ASSERT_EQ(collector.num_rows(), 2 * 192);
  const auto rows = collector.Rows(RowKind::kValue, 1, 1);
  ASSERT_TRUE(rows.ok()) << rows.status().message();
  for (int64_t i = 0; i < collector.num_rows(); ++i) {
    const int64_t pos = 64 + i % 192;
    EXPECT_EQ((*rows)[static_cast<size_t>(i * kDim + 3)], ToFloat(ToF16(static_cast<float>(pos) + 19.0f / 64)));
  }
}

TEST(Collector, KeepsAnEvenShareWhenThereIsTooMuch) {
  Collector collector({.layers = kLayers, .max_pages = 10});
  collector.Expect(64);
  for (int64_t pos = 0; pos < 4096; pos += 512) {
    collector.BeginBatch(pos, 512);
    AddAll(collector, RowKind::kKey, 0, pos, 512, kWidth);
  }
  EXPECT_EQ(collector.num_rows(), 640);
  const auto rows = collector.Rows(RowKind::kKey, 0, 0);
  ASSERT_TRUE(rows.ok());
  for (size_t page = 0; page + 1 < 10; ++page) {
    const float gap = (*rows)[(page + 1) * 64 * kDim] - (*rows)[page * 64 * kDim];
    EXPECT_GE(gap, 6 * 64);
    EXPECT_LE(gap, 7 * 64);
  }
}

TEST(Collector, SaysWhatIsMissing) {
  Collector collector({.layers = kLayers});
  collector.Expect(4);
  collector.BeginBatch(0, 256);
  AddAll(collector, RowKind::kKey, 0, 0, 256, kWidth);
  AddAll(collector, RowKind::kKey, 1, 0, 128, kWidth);
  EXPECT_TRUE(collector.Rows(RowKind::kKey, 0, 0).ok());
  EXPECT_EQ(collector.Rows(RowKind::kKey, 1, 0).status().code(), StatusCode::kNotFound);  // only a half
  EXPECT_EQ(collector.Rows(RowKind::kKeyBeforeRope, 0, 0).status().message(),
            "the model showed no keys before RoPE of layer 0, or not all");
  EXPECT_EQ(collector.Metric(Side::kKey, 0, 0).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(collector.Metric(Side::kValue, 0, 0).status().code(), StatusCode::kNotFound);
}

TEST(Collector, KeepsKeysBeforeRopeWhenAskedTo) {
  Collector collector({.layers = kLayers, .keys = false, .keys_before_rope = true});
  EXPECT_TRUE(collector.Wants(RowKind::kKeyBeforeRope));
  collector.Expect(2);
  collector.BeginBatch(0, 128);
  AddAll(collector, RowKind::kKeyBeforeRope, 0, 0, 128, kWidth);
  AddAll(collector, RowKind::kKey, 0, 0, 128, kWidth);
  EXPECT_TRUE(collector.Rows(RowKind::kKeyBeforeRope, 0, 0).ok());
  EXPECT_FALSE(collector.Rows(RowKind::kKey, 0, 0).ok());
  EXPECT_FALSE(Collector({.layers = kLayers}).Wants(RowKind::kKeyBeforeRope));
}

TEST(Collector, TheMetricOfValuesIsTheOutputProjectionsGram) {
  Collector collector({.layers = kLayers});
  // Four query heads, two for each KV head; one row whose value is 1 + head in channels 0 and 5.
  std::vector<float> row(4 * kDim, 0.0f);
  for (int head = 0; head < 4; ++head) {
    row[static_cast<size_t>(head * kDim)] = row[static_cast<size_t>(head * kDim + 5)] = static_cast<float>(1 + head);
  }
  collector.Add(RowKind::kOutput, 0, 1, 4 * kDim, row.data(), row.size());
  row.assign(row.size(), 0.0f);
  row[2 * kDim + 5] = 5.0f;
  collector.Add(RowKind::kOutput, 0, 1, 4 * kDim, row.data(), row.size());
  const auto first = collector.Metric(Side::kValue, 0, 0);
  const auto second = collector.Metric(Side::kValue, 0, 1);
  ASSERT_TRUE(first.ok() && second.ok());
  const auto at = [](const std::vector<double>& m, size_t i, size_t j) { return m[i * kDim + j]; };
  EXPECT_NEAR(at(*first, 0, 0), kDim / 2.0, 1e-6);  // (1 + 4) of a trace of 10, which becomes dim
  EXPECT_NEAR(at(*first, 5, 0), kDim / 2.0, 1e-6);
  EXPECT_NEAR(at(*second, 0, 0), kDim * 25.0 / 75.0, 1e-6);  // 9 + 16 of 25 + 25 + 25
  EXPECT_NEAR(at(*second, 5, 5), kDim * 50.0 / 75.0, 1e-6);
  EXPECT_NEAR(at(*second, 0, 5), kDim * 25.0 / 75.0, 1e-6);
}

// All keys are zero but row 70, which the queries of channel 0 look at; those of channel 1 look at nothing in particular.
TEST(Collector, RowsCountAsQueriesMeetThem) {
  Collector collector({.layers = kLayers});
  collector.Expect(4);
  collector.BeginBatch(0, 256);
  std::vector<float> keys(256 * kWidth, 0.0f);
  keys[70 * kWidth] = 20.0f;
  collector.Add(RowKind::kKey, 0, 256, kWidth, keys.data(), kWidth);
  std::vector<float> queries(256 * kWidth, 0.0f);
  for (size_t t = 0; t < 256; ++t) {
    queries[t * kWidth] = t % 8 == 3 ? 1.0f : 0.0f;  // these are looked at: every fourth, from 3 on
    queries[t * kWidth + 1] = t % 8 == 7 ? 1.0f : 0.0f;
  }
  collector.Add(RowKind::kQuery, 0, 256, kWidth, queries.data(), kWidth);
  collector.EndWindow();
  const std::vector<float> weights = collector.Weights(0, 0);
  ASSERT_EQ(weights.size(), 192u);
  double sum = 0.0;
  for (const float weight : weights) sum += static_cast<double>(weight);
  EXPECT_NEAR(sum / 192, 1.0, 1e-3);
  EXPECT_GT(weights[6], 150.0f);  // row 70
  EXPECT_LT(weights[7], 1.0f);
  const auto metric = collector.Metric(Side::kKey, 0, 0);
  ASSERT_TRUE(metric.ok());
  EXPECT_NEAR((*metric)[0], 0.5 * kDim, 1e-3);  // all queries count alike
  EXPECT_NEAR((*metric)[kDim + 1], 0.5 * kDim, 1e-3);
}

}  // namespace
}  // namespace kvant
