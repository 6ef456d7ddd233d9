#include "tune/attention_probe.h"

#include <gtest/gtest.h>

#include "eval/distortion.h"
#include "tune/candidates.h"

namespace kvant {
namespace {

constexpr int64_t kRows = 256;
constexpr int kWidth = 128;  // two KV heads of 64
const std::vector<LayerShape> kLayers = {{.kv_heads = 2, .k_dim = 64, .v_dim = 64}};

CodecChoice Codec(const char* text) { return Scheme::Parse(text)->key; }

/// Normal rows, in batches as a runner gives them; queries of 4 heads, small enough that attention is spread.
AttentionProbe Fed(bool equal_values = false) {
  AttentionProbe probe(kLayers, kRows);
  std::vector<float> keys = NormalValues((kRows + 64) * kWidth, 1), values = NormalValues((kRows + 64) * kWidth, 2);
  std::vector<float> queries = NormalValues((kRows + 64) * 2 * kWidth, 3);
  for (float& q : queries) q *= 0.1f;
  if (equal_values) std::fill(values.begin(), values.end(), 1.0f);
  for (int64_t first = 0; first < kRows + 64; first += 160) {
    probe.Add(RowKind::kKey, 0, 160, kWidth, keys.data() + first * kWidth, kWidth);
    probe.Add(RowKind::kValue, 0, 160, kWidth, values.data() + first * kWidth, kWidth);
    probe.Add(RowKind::kQuery, 0, 160, 2 * kWidth, queries.data() + first * 2 * kWidth, 2 * kWidth);
    probe.Add(RowKind::kKey, 7, 160, kWidth, keys.data(), kWidth);  // a layer that nobody asked for
  }
  return probe;
}

double Error(const AttentionProbe& probe, bool is_key, const char* codec, int sink_tokens = 0) {
  const Result<double> error = probe.Error(0, is_key, Codec(codec), sink_tokens, nullptr);
  EXPECT_TRUE(error.ok()) << error.status().message();
  return error.ok() ? *error : -1;
}

TEST(AttentionProbeTest, ErrorsFallWithTheBits) {
  const AttentionProbe probe = Fed();
  for (const bool is_key : {true, false}) {
    EXPECT_LT(Error(probe, is_key, "raw"), 1e-3);
    EXPECT_LT(Error(probe, is_key, "int:8"), 0.02);
    EXPECT_LT(Error(probe, is_key, "int:8"), Error(probe, is_key, "int:4") / 4);
    EXPECT_LT(Error(probe, is_key, "int:4"), Error(probe, is_key, "int:2") / 2);
  }
  // Averages of independent errors: values' relative error is the rows' own.
  const double rows =
      MeasureDistortion(*MakeCodec("int", {{"bits", "4"}}, {.side = Side::kValue, .dim = 64}), 4, 5)->relative_error;
  EXPECT_NEAR(Error(probe, false, "int:4") / rows, 1, 0.15);
}

TEST(AttentionProbeTest, KeysDoNotMatterWhereValuesAreEqual) {
  EXPECT_LT(Error(Fed(true), true, "int:2"), 1e-5);
  EXPECT_GT(Error(Fed(false), true, "int:2"), 1e-2);
}

TEST(AttentionProbeTest, SinksAreExact) {
  const AttentionProbe probe = Fed();
  EXPECT_LT(Error(probe, false, "int:2", 64), Error(probe, false, "int:2", 0));
}

TEST(AttentionProbeTest, SaysWhatItHasNotSeen) {
  AttentionProbe probe = Fed();
  probe.Clear();
  EXPECT_EQ(probe.Error(0, true, Codec("raw"), 0, nullptr).status().code(), StatusCode::kNotFound);
  EXPECT_EQ(Fed().Error(0, true, Codec("cq"), 0, nullptr).status().code(), StatusCode::kNotFound);  // no calibration
}

}  // namespace
}  // namespace kvant
