#include "codec/qjl/qjl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "codec/parts/tile.h"
#include "codec/test_rows.h"

namespace kvant::qjl {
namespace {

using testing::HasSubstr;
using Floats = std::vector<float>;

CodecOptions Options(std::string_view text) { return *ParseCodecOptions(kInfo, text); }

Codec Make(std::string_view options, const BlockShape& shape) {
  auto codec = MakeCodec("qjl", Options(options), shape);
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *codec;
}

std::string Error(std::string_view options, const BlockShape& shape) {
  return MakeCodec("qjl", Options(options), shape).status().message();
}

Codec Around(std::unique_ptr<CodecState> state, const CodecVerbs& verbs) {
  return {.info = &kInfo, .state = std::move(state), .verbs = verbs};
}

AlignedBuffer<std::byte> Encode(const Codec& codec, const Floats& rows) {
  AlignedBuffer<std::byte> block(codec.block_bytes());
  const Status status = codec.verbs.encode(*codec.state, {}, rows.data(), block.data());
  EXPECT_TRUE(status.ok()) << status.message();
  return block;
}

Floats Decode(const Codec& codec, const AlignedBuffer<std::byte>& block) {
  Floats rows(static_cast<size_t>(kTokensPerPage * codec.shape().dim), NAN);
  const Status status = codec.verbs.decode(*codec.state, {}, block.data(), rows.data());
  EXPECT_TRUE(status.ok()) << status.message();
  return rows;
}

Floats Score(const Codec& codec, const AlignedBuffer<std::byte>& block, const Floats& queries) {
  const int heads = static_cast<int>(queries.size()) / codec.shape().dim;
  AlignedBuffer<std::byte> prepared(codec.state->prepared_head_bytes * static_cast<size_t>(heads));
  AlignedBuffer<float> scores(static_cast<size_t>(heads) * kTokensPerPage);
  codec.verbs.prepare_query(*codec.state, {}, queries.data(), heads, prepared.data());
  codec.verbs.score(*codec.state, {}, block.data(), prepared.data(), heads, scores.data());
  return {scores.data(), scores.data() + scores.size()};
}

Floats Normal(size_t count, unsigned seed) {
  Floats values(count);
  FillNormal(seed, values);
  return values;
}

double Dot(const float* a, const float* b, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// ---- bytes

/// Directions along the channels, so that a sign is that of one value: S = 4 I for head size 16.
std::shared_ptr<const Sketch> Axes() {
  auto s = std::make_shared<Sketch>();
  *s = {.dim = 16, .rows = 16, .by_row = AlignedBuffer<float>(256), .by_channel = AlignedBuffer<float>(256)};
  for (size_t i = 0; i < 16; ++i) s->by_row[i * 17] = s->by_channel[i * 17] = 4.0f;
  return s;
}

TEST(Qjl, BlockComputedByHand) {
  const Codec codec = Around(
      MakeKeyState({Side::kKey, 16}, {.sketch = 16, .outliers = 1, .outlier_sketch = 16}, Axes()), kInfo.reference);
  // Token 0: outlier channel 5 is -12, inliers 3 (channel 0) and -4 (channel 9). Token 40: channel 2 is the
  // outlier of the second group. All others are zero.
  Floats rows(64 * 16);
  rows[0] = 3.0f, rows[5] = -12.0f, rows[9] = -4.0f;
  rows[40 * 16 + 2] = 7.0f, rows[40 * 16 + 4] = 1.0f;
  const auto block = Encode(codec, rows);

  ASSERT_EQ(block.size(), 576u);  // 128 + 128 + 128 + 128 + 2, whole cache lines
  std::vector<int> expected(576);
  // Code number ((channel / 4) * 64 + token) * 4 + channel % 4; bit number / 128 of byte number % 128.
  expected[0] |= 1 << 0;                                 // signs: token 0, channel 0: number 0
  expected[(160 + 256) % 128] |= 1 << 3;                 // token 40, channel 4: (1 * 64 + 40) * 4 = 416
  expected[128] = 0x00, expected[129] = 0x45;            // norms: |(3, -4)| = 5 = 0x4500
  expected[128 + 80] = 0x00, expected[128 + 81] = 0x3C;  // token 40: 1 = 0x3C00
  expected[256 + (160 + 2) % 128] |= 1 << 1;             // outlier signs: token 40, channel 2: number 162
  expected[384] = 0x00, expected[385] = 0x4A;            // outlier norms: 12 = 0x4A00
  expected[384 + 80] = 0x00, expected[384 + 81] = 0x47;  // 7 = 0x4700
  expected[512] = 5, expected[513] = 2;
  for (size_t i = 0; i < block.size(); ++i) EXPECT_EQ(static_cast<int>(block[i]), expected[i]) << "byte " << i;

  const float step = 4.0f * EstimatorScale(16);  // a direction's length times sqrt(pi / 2) / 16
  const Floats decoded = Decode(codec, block);
  EXPECT_FLOAT_EQ(decoded[0], 5 * step);
  EXPECT_FLOAT_EQ(decoded[1], -5 * step);  // a sign knows no zero
  EXPECT_FLOAT_EQ(decoded[5], -12 * step);
  EXPECT_FLOAT_EQ(decoded[40 * 16 + 2], 7 * step);
  EXPECT_FLOAT_EQ(decoded[40 * 16 + 4], step);
  EXPECT_EQ(decoded[16], 0.0f);  // token 1: norm 0
}

double StreamBits(const Codec& codec) {
  double bytes = 0;
  for (const Stream& stream : codec.state->layout.streams()) bytes += static_cast<double>(stream.bytes);
  return bytes * 8 / (64 * codec.shape().dim);
}

TEST(Qjl, StoresTheBitsOfTheMethod) {
  constexpr int kLayers = 32;
  const auto key = [](std::string_view options, int layer) {
    return Make(options, {.side = Side::kKey, .dim = 128, .layer = layer, .num_layers = kLayers});
  };
  EXPECT_NEAR(StreamBits(key("", 14)), 5.266, 5e-4);
  EXPECT_NEAR(StreamBits(key("", 15)), 4.266, 5e-4);
  EXPECT_EQ(StreamBits(key("outliers=0", 0)), 4.125);
  EXPECT_EQ(StreamBits(key("outliers=0", 31)), 2.125);
  EXPECT_EQ(StreamBits(Make("", {Side::kValue, 128})), 3.0);
  EXPECT_EQ(key("", 14).block_bytes(), 5440u);
  EXPECT_EQ(key("", 15).block_bytes(), 4416u);
  EXPECT_EQ(key("outliers=0", 0).block_bytes(), 4224u);
  EXPECT_EQ(key("outliers=0", 31).block_bytes(), 2176u);

  double average = 0;
  for (int layer = 0; layer < kLayers; ++layer) average += StreamBits(key("", layer)) / kLayers;
  EXPECT_NEAR(average, 4.734, 5e-4);
}

TEST(Qjl, FirstLayersHaveTheLongerSketch) {
  const auto bits = [](int layer) {
    const Codec codec = Make("first_layers=2,sketch=64,first_sketch=96,outlier_sketch=32,first_outlier_sketch=16",
                             {.side = Side::kKey, .dim = 64, .layer = layer, .num_layers = 4});
    return std::pair(AsKeys(*codec.state).parts[0].bits, AsKeys(*codec.state).parts[1].bits);
  };
  EXPECT_EQ(bits(1), std::pair(96, 16));
  EXPECT_EQ(bits(2), std::pair(64, 32));
}

// ---- options

TEST(Qjl, RefusesOptionsByName) {
  const BlockShape key{Side::kKey, 64};
  const BlockShape value{Side::kValue, 64};
  EXPECT_THAT(Error("sketch=100", key), HasSubstr("sketch=100 is not accepted; accepted: multiples of 16 up to 1024"));
  EXPECT_THAT(Error("sketch=0", key), HasSubstr("sketch=0"));
  EXPECT_THAT(Error("first_sketch=1040", key), HasSubstr("first_sketch=1040"));
  EXPECT_THAT(Error("outliers=17", key), HasSubstr("outliers=17"));
  EXPECT_THAT(Error("outliers=16", {Side::kKey, 16}), HasSubstr("for a head of 16 channels"));
  EXPECT_THAT(Error("first_layers=-1", key), HasSubstr("first_layers=-1"));
  EXPECT_THAT(Error("bits=2", key), HasSubstr("bits=2 is not accepted for keys"));
  EXPECT_THAT(Error("sketch=256", value), HasSubstr("sketch=256 is not accepted for values"));
  EXPECT_THAT(Error("bits=3", value), HasSubstr("bits=3"));
  EXPECT_THAT(Error("group=128", value), HasSubstr("group=128 is not accepted for a head of 64 channels"));
  EXPECT_THAT(Error("", {Side::kValue, 80}), HasSubstr("multiple of 32, not 80"));
  EXPECT_THAT(Error("", {.side = Side::kKey, .dim = 64, .tokens = 16}), HasSubstr("blocks of 16 tokens"));
}

// ---- the estimator over many matrices

/// How E[score] relates to q . k for directions of length sqrt(dim) that are uniform on the sphere.
double SphereFactor(int dim) {
  return std::sqrt(dim / 2.0) * std::exp(std::lgamma(dim / 2.0) - std::lgamma((dim + 1) / 2.0));
}

/// 64 unit keys of cosine `rho` to the unit query `query`.
Floats KeysWithCosine(const Floats& query, double rho) {
  const int dim = static_cast<int>(query.size());
  Floats keys = Normal(64 * query.size(), 5);
  for (int t = 0; t < 64; ++t) {
    float* key = keys.data() + t * dim;
    const double along = Dot(key, query.data(), dim);
    const double across = std::sqrt(Dot(key, key, dim) - along * along);
    for (int c = 0; c < dim; ++c) {
      key[c] = static_cast<float>(rho * query[static_cast<size_t>(c)] +
                                  std::sqrt(1 - rho * rho) * (key[c] - along * query[static_cast<size_t>(c)]) / across);
    }
  }
  return keys;
}

struct Moments {
  double mean_error = 0;      ///< of the score averaged over the page, over seeds
  double standard_error = 0;  ///< of mean_error
  double variance = 0;        ///< of one score
};

constexpr int kSeeds = 1000;

Moments Estimate(int dim, const KeyParams& params, SketchKind kind, double rho) {
  Floats query = Normal(static_cast<size_t>(dim), 3);
  const double length = std::sqrt(Dot(query.data(), query.data(), dim));
  for (float& x : query) x = static_cast<float>(x / length);
  const Floats keys = KeysWithCosine(query, rho);
  const double expected = rho * (kind == SketchKind::kOrthogonal ? SphereFactor(dim) : 1.0);
  Moments m;
  double page_squares = 0;
  for (uint64_t seed = 0; seed < kSeeds; ++seed) {
    auto matrix =
        std::make_shared<const Sketch>(MakeSketch(dim, std::max(params.sketch, params.outlier_sketch), seed, kind));
    const Codec codec = Around(MakeKeyState({Side::kKey, dim}, params, std::move(matrix)), SimdVerbs());
    double page = 0;
    for (const float score : Score(codec, Encode(codec, keys), query)) {
      page += (score - expected) / 64;
      m.variance += (score - expected) * (score - expected) / (64.0 * kSeeds);
    }
    m.mean_error += page / kSeeds;
    page_squares += page * page;
  }
  m.standard_error = std::sqrt(page_squares) / kSeeds;
  return m;
}

TEST(QjlEstimator, GaussianSketchIsUnbiasedWithItsVariance) {
  for (const double rho : {0.0, 0.7}) {
    const Moments m = Estimate(64, {.sketch = 128, .outliers = 0, .outlier_sketch = 16}, SketchKind::kGaussian, rho);
    EXPECT_LT(std::abs(m.mean_error), 4 * m.standard_error) << rho;
    EXPECT_NEAR(m.variance * 128 / (std::numbers::pi / 2 - rho * rho), 1.0, 0.05) << rho;
  }
}

TEST(QjlEstimator, OrthogonalSketchIsUnbiasedWithItsVariance) {
  for (const double rho : {0.0, 0.7}) {
    const Moments m = Estimate(64, {.sketch = 256, .outliers = 0, .outlier_sketch = 16}, SketchKind::kOrthogonal, rho);
    EXPECT_LT(std::abs(m.mean_error), 4 * m.standard_error) << rho;
    EXPECT_NEAR(m.variance * 256 / (std::numbers::pi / 2 - 1 - rho * rho / 2), 1.0, 0.06) << rho;
  }
}

TEST(QjlEstimator, ShortOrthogonalSketchGainsLess) {
  const double rho = 0.7;
  const Moments m = Estimate(64, {.sketch = 32, .outliers = 0, .outlier_sketch = 16}, SketchKind::kOrthogonal, rho);
  EXPECT_LT(std::abs(m.mean_error), 4 * m.standard_error);
  const double predicted = (std::numbers::pi / 2 - rho * rho) - 31.0 / 63.0 * (1 - rho * rho / 2);
  EXPECT_NEAR(m.variance * 32 / predicted, 1.0, 0.06);
}

TEST(QjlEstimator, OutliersLeaveItUnbiased) {
  const Moments m = Estimate(64, {.sketch = 64, .outliers = 8, .outlier_sketch = 32}, SketchKind::kOrthogonal, 0.7);
  EXPECT_LT(std::abs(m.mean_error), 4 * m.standard_error);
  EXPECT_GT(m.standard_error, 1e-4);
}

// ---- both implementations

TEST(Qjl, ScoresAreProductsWithDecodedRows) {
  for (const char* options : {"", "outliers=0", "first_sketch=48,first_outlier_sketch=272,outliers=16",
                              "first_sketch=1024,first_outlier_sketch=16,outliers=1"}) {
    for (const int dim : {32, 80, 256}) {
      const Codec codec = Make(options, {Side::kKey, dim});
      const auto block = Encode(codec, Normal(64 * static_cast<size_t>(dim), 1));
      const Floats rows = Decode(codec, block);
      for (const int heads : {1, 5, 16}) {
        const Floats queries = Normal(static_cast<size_t>(heads * dim), 2);
        const Floats scores = Score(codec, block, queries);
        double error = 0, energy = 0;
        for (int i = 0; i < heads * 64; ++i) {
          const double truth = Dot(queries.data() + i / 64 * dim, rows.data() + i % 64 * dim, dim);
          error += std::pow(scores[static_cast<size_t>(i)] - truth, 2);
          energy += truth * truth;
        }
        EXPECT_LT(std::sqrt(error / energy), 2e-4) << options << " dim " << dim << " heads " << heads;
      }
    }
  }
}

// ---- edges

class QjlEdges : public testing::TestWithParam<const CodecVerbs*> {
 protected:
  Codec codec_ = Around(MakeKeyState({Side::kKey, 64}, {}, SharedSketch(64, 256)), *GetParam());

  Floats RoundTrip(const Floats& rows) {
    const auto block = Encode(codec_, rows);
    for (const float score : Score(codec_, block, Normal(128, 3))) EXPECT_TRUE(std::isfinite(score));
    const Floats decoded = Decode(codec_, block);
    for (const float value : decoded) EXPECT_TRUE(std::isfinite(value));
    return decoded;
  }
};

TEST_P(QjlEdges, ZeroRowsDecodeToZero) {
  for (const float value : RoundTrip(Floats(64 * 64))) EXPECT_EQ(value, 0.0f);
}

TEST_P(QjlEdges, ConstantRowsKeepTheLowestChannelsApart) {
  const auto block = Encode(codec_, Floats(64 * 64, 2.5f));
  const ChannelList outliers = StoredOutliers(AsKeys(*codec_.state), block.data(), 1);
  for (int i = 0; i < outliers.size; ++i) EXPECT_EQ(outliers.channels[i], i);
  RoundTrip(Floats(64 * 64, 2.5f));
}

// The norm of the inliers is not a difference of two large numbers, so it keeps its digits.
TEST_P(QjlEdges, InliersSurviveOutliersThatDominate) {
  Floats rows = Normal(64 * 64, 4);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 8; ++c) rows[t * 64 + c * 7] = 3000.0f;
  }
  const Floats decoded = RoundTrip(rows);
  double error = 0, energy = 0;
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == 3000.0f) continue;
    error += std::pow(decoded[i] - rows[i], 2);
    energy += rows[i] * rows[i];
  }
  EXPECT_NEAR(std::sqrt(error / energy), std::sqrt((std::numbers::pi / 2 - 1) * 64 / 256), 0.04);
}

TEST_P(QjlEdges, OnlyOutliers) {
  Floats rows(64 * 64);
  for (size_t i = 0; i < rows.size(); i += 8) rows[i] = 1.0f;
  const Floats decoded = RoundTrip(rows);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] == 0.0f) {
      EXPECT_EQ(decoded[i], 0.0f);
    }
  }
}

TEST_P(QjlEdges, RefusesNormsBeyondHalfPrecision) {
  for (const float value : {10000.0f, 1e30f}) {
    AlignedBuffer<std::byte> block(codec_.block_bytes());
    const Floats rows(64 * 64, value);
    const Status status = codec_.verbs.encode(*codec_.state, {}, rows.data(), block.data());
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("does not fit fp16"));
  }
}

TEST_P(QjlEdges, RefusesCorruptBlocks) {
  const auto block = Encode(codec_, Normal(64 * 64, 4));
  const KeyState& s = AsKeys(*codec_.state);
  const auto with = [&](size_t ofs, int byte) {
    AlignedBuffer<std::byte> broken(block.size());
    std::copy_n(block.data(), block.size(), broken.data());
    broken[ofs] = static_cast<std::byte>(byte);
    Floats rows(64 * 64);
    return codec_.verbs.decode(*codec_.state, {}, broken.data(), rows.data());
  };
  EXPECT_EQ(with(s.parts[0].norms_byte_ofs + 7, 0x7C).code(), StatusCode::kCorruption);  // infinity or NaN
  EXPECT_EQ(with(s.parts[1].norms_byte_ofs + 1, 0xC0).code(), StatusCode::kCorruption);  // negative
  EXPECT_EQ(with(s.channels_byte_ofs + 7, 64).code(), StatusCode::kCorruption);          // no such channel
  EXPECT_EQ(with(s.channels_byte_ofs + 8, 63).code(), StatusCode::kCorruption);          // not ascending
  EXPECT_TRUE(with(s.parts[0].signs_byte_ofs, 0xFF).ok());
}

INSTANTIATE_TEST_SUITE_P(Implementations, QjlEdges, testing::Values(&kInfo.reference, &SimdVerbs()),
                         [](const auto& info) { return info.param == &kInfo.reference ? "reference" : "simd"; });

}  // namespace
}  // namespace kvant::qjl
