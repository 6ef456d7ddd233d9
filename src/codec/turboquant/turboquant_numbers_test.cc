// The numbers that the papers print, or that follow from their formulas.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/turboquant/turboquant.h"

namespace kvant::turboquant {
namespace {

constexpr int kDim = 128;

// Key rows of several pages and queries, and what a codec makes of them.
class Keys {
 public:
  explicit Keys(int pages, uint32_t seed = 1) : rows(static_cast<size_t>(pages) * 64 * kDim), queries(4 * kDim) {
    std::mt19937 rng(seed);
    std::normal_distribution<float> normal;
    for (float& v : rows.span()) v = normal(rng);
    for (float& v : queries.span()) v = normal(rng);
  }
  size_t tokens() const { return rows.size() / kDim; }

  AlignedBuffer<float> rows;     // [tokens, dim]
  AlignedBuffer<float> queries;  // [4, dim]
};

Codec MakeFor(const std::string& text, Side side = Side::kKey) {
  const auto codec = MakeCodec("turboquant", *ParseCodecOptions(kInfo, text), {.side = side, .dim = kDim});
  EXPECT_TRUE(codec.ok()) << codec.status().message();
  return *codec;
}

AlignedBuffer<float> RoundTrip(const Codec& codec, const AlignedBuffer<float>& rows, const std::byte* basis = nullptr) {
  AlignedBuffer<float> decoded(rows.size());
  AlignedBuffer<std::byte> block(codec.block_bytes());
  for (size_t first = 0; first < rows.size(); first += 64 * kDim) {
    EXPECT_TRUE(codec.verbs.encode(*codec.state, {.basis = basis}, rows.data() + first, block.data()).ok());
    EXPECT_TRUE(codec.verbs.decode(*codec.state, {.basis = basis}, block.data(), decoded.data() + first).ok());
  }
  return decoded;
}

double Dot(const float* a, const float* b) {
  double sum = 0.0;
  for (int c = 0; c < kDim; ++c) sum += static_cast<double>(a[c]) * b[c];
  return sum;
}

double RelativeError(const AlignedBuffer<float>& decoded, const AlignedBuffer<float>& rows) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < rows.size(); ++i) {
    error += std::pow(static_cast<double>(decoded[i]) - rows[i], 2);
    norm += std::pow(static_cast<double>(rows[i]), 2);
  }
  return error / norm;
}

// Slope of <row, decoded> over <row, row>.
double Slope(const AlignedBuffer<float>& decoded, const AlignedBuffer<float>& rows) {
  double dot = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < rows.size(); i += kDim) {
    dot += Dot(rows.data() + i, decoded.data() + i);
    norm += Dot(rows.data() + i, rows.data() + i);
  }
  return dot / norm;
}

// dim * mean of <query, decoded - row>^2 for unit vectors.
double ScoreError(const Keys& keys, const AlignedBuffer<float>& decoded) {
  double error = 0.0;
  for (size_t t = 0; t < keys.tokens(); ++t) {
    const float* row = keys.rows.data() + t * kDim;
    for (size_t q = 0; q < 4; ++q) {
      const float* query = keys.queries.data() + q * kDim;
      const double difference = Dot(query, decoded.data() + t * kDim) - Dot(query, row);
      error += difference * difference / (Dot(query, query) * Dot(row, row));
    }
  }
  return error * kDim / (4.0 * static_cast<double>(keys.tokens()));
}

// ---- TurboQuant_mse

TEST(TurboquantNumbers, DistortionOfThePaper) {
  constexpr double kDistortion[] = {0.36338, 0.11748, 0.034548, 0.009501};
  const Keys keys(40);
  for (int bits = 1; bits <= 4; ++bits) {
    for (const char* rotation : {"preset=paper", "scale=norm", "scale=norm,mean=on"}) {
      const auto decoded = RoundTrip(MakeFor(std::string(rotation) + ",bits=" + std::to_string(bits)), keys.rows);
      // Up to 2.2 % below: rows of 128 values have shorter tails than the normal density.
      const double ratio = RelativeError(decoded, keys.rows) / kDistortion[bits - 1];
      EXPECT_GT(ratio, rotation[0] == 'p' || bits < 4 ? 0.95 : 0.94) << bits << " " << rotation;
      EXPECT_LT(ratio, 1.005) << bits << " " << rotation;
    }
  }
}

TEST(TurboquantNumbers, ScalesHaveTheirBias) {
  const Keys keys(40);
  const struct {
    int bits;
    double shrinkage;  // D
  } kCases[] = {{1, 0.3634}, {2, 0.1155}, {3, 0.0336}, {4, 0.0092}};
  for (const auto& [bits, shrinkage] : kCases) {
    const auto slope = [&, b = bits](const std::string& scale) {
      return Slope(RoundTrip(MakeFor("scale=" + scale + ",bits=" + std::to_string(b)), keys.rows), keys.rows) - 1.0;
    };
    EXPECT_NEAR(slope("unbiased"), 0.0, 1e-3) << bits;
    EXPECT_NEAR(slope("norm"), -shrinkage, 3e-3) << bits;
    EXPECT_NEAR(slope("ls"), -shrinkage, 3e-3) << bits;
    EXPECT_NEAR(slope("nc"), std::sqrt(1.0 - shrinkage) - 1.0, 3e-3) << bits;
  }
}

// Rotations drawn independently of the data spread alike, in the tail too.
TEST(TurboquantNumbers, HadamardIsAsGoodAsDense) {
  const Keys keys(40);
  for (const char* rotation : {"hadamard", "dense"}) {
    const auto decoded = RoundTrip(MakeFor(std::string("scale=nc,rotate=") + rotation), keys.rows);
    std::vector<double> errors;
    for (size_t i = 0; i < keys.rows.size(); i += kDim) {
      double error = 0.0;
      for (size_t c = i; c < i + kDim; ++c) error += std::pow(static_cast<double>(decoded[c]) - keys.rows[c], 2);
      errors.push_back(error / Dot(keys.rows.data() + i, keys.rows.data() + i));
    }
    std::sort(errors.begin(), errors.end());
    EXPECT_NEAR(errors[errors.size() * 99 / 100], 0.0181, 0.0015) << rotation;
    EXPECT_LT(errors.back(), 0.05) << rotation;
  }
}

// ---- TurboQuant_prod

TEST(TurboquantNumbers, ProductErrorOfThePaper) {
  const Keys keys(40);
  const struct {
    const char* options;
    double error;  // d * mean square error of a score of unit vectors
  } kCases[] = {
      {"scale=norm,residual=gaussian,bits=1", 1.57},
      {"scale=norm,residual=gaussian,bits=2", 0.563},
      {"scale=norm,residual=gaussian,bits=3", 0.180},
      {"scale=norm,residual=gaussian,bits=4", 0.0530},
      {"scale=norm,residual=orthogonal,bits=2", 0.205},
      {"scale=norm,residual=orthogonal,bits=3", 0.066},
      {"scale=norm,residual=orthogonal,bits=4", 0.0193},
      {"bits=2", 0.131},
      {"bits=3", 0.0347},
      {"bits=4", 0.0093},
  };
  for (const auto& [options, error] : kCases) {
    EXPECT_NEAR(ScoreError(keys, RoundTrip(MakeFor(options), keys.rows)) / error, 1.0, 0.06) << options;
  }
}

// One key and one query, 1,000 matrices: the mean of the estimate is the product, within four of its standard errors.
TEST(TurboquantNumbers, ResidualIsUnbiasedOverItsSketch) {
  constexpr int kSmall = 32;
  constexpr int kSeeds = 1000;
  std::mt19937 rng(4);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> rows(64 * kSmall), query(kSmall), decoded(64 * kSmall);
  for (float& v : query.span()) v = normal(rng);
  for (size_t i = 0; i < kSmall; ++i) rows[i] = 0.7f * query[i] + normal(rng);
  double product = 0.0;
  for (size_t i = 0; i < kSmall; ++i) product += static_cast<double>(query[i]) * rows[i];
  for (const SketchKind kind : {SketchKind::kGaussian, SketchKind::kOrthogonal}) {
    const std::string options =
        std::string("bits=2,scale=norm,residual=") + (kind == SketchKind::kGaussian ? "gaussian" : "orthogonal");
    double sum = 0.0;
    double squares = 0.0;
    for (int seed = 0; seed < kSeeds; ++seed) {
      auto state = MakeState({Side::kKey, kSmall}, *ParseCodecOptions(kInfo, options),
                             std::make_shared<Sketch>(MakeSketch(kSmall, kSmall, static_cast<uint64_t>(seed), kind)));
      ASSERT_TRUE(state.ok());
      AlignedBuffer<std::byte> block((*state)->layout.block_bytes());
      ASSERT_TRUE(SimdVerbs()->encode(**state, {}, rows.data(), block.data()).ok());
      ASSERT_TRUE(SimdVerbs()->decode(**state, {}, block.data(), decoded.data()).ok());
      double estimate = 0.0;
      for (size_t i = 0; i < kSmall; ++i) estimate += static_cast<double>(query[i]) * decoded[i];
      sum += estimate;
      squares += estimate * estimate;
    }
    const double mean = sum / kSeeds;
    const double standard_error = std::sqrt((squares / kSeeds - mean * mean) / kSeeds);
    EXPECT_NEAR(mean, product, 4.0 * standard_error) << options;
    EXPECT_GT(standard_error, 0.0);
  }
}

// ---- keys with a large constant part, which softmax ignores: only means bring the error back

TEST(TurboquantNumbers, ConstantChannelsNeedMeans) {
  const auto centred_error = [](const std::string& options, float size, size_t every) {
    Keys keys(20);
    AlignedBuffer<float> shifted(keys.rows.size());
    for (size_t i = 0; i < shifted.size(); ++i) {
      const float sign = i % kDim / every % 2 ? -1.0f : 1.0f;
      shifted[i] = keys.rows[i] + (i % kDim % every == 0 ? (every == 1 ? 1.0f : sign) * size : 0.0f);
    }
    AlignedBuffer<float> decoded = RoundTrip(MakeFor(options), shifted);
    // Whatever all scores of a query have in common is not an error.
    double error = 0.0;
    for (size_t q = 0; q < 4; ++q) {
      const float* query = keys.queries.data() + q * kDim;
      double mean = 0.0;
      double square = 0.0;
      for (size_t t = 0; t < keys.tokens(); ++t) {
        const double d = (Dot(query, decoded.data() + t * kDim) - Dot(query, shifted.data() + t * kDim));
        mean += d;
        square += d * d;
      }
      const double n = static_cast<double>(keys.tokens());
      error += (square / n - mean * mean / (n * n)) / Dot(query, query) / 4.0;
    }
    return error;  // relative to the energy 1 per channel of the centred key
  };
  EXPECT_GT(centred_error("4", 20.0f, 32), 0.05);  // four channels of +-20
  EXPECT_NEAR(centred_error("4,mean=on", 20.0f, 32), 0.0094, 0.001);
  EXPECT_GT(centred_error("4", 3.0f, 1), 0.05);  // all channels +3: signs keep it out of one coordinate
  EXPECT_LT(centred_error("4", 3.0f, 1), 0.2);
  EXPECT_NEAR(centred_error("4,mean=on", 3.0f, 1), 0.0094, 0.001);
}

// ---- TurboESM

AlignedBuffer<std::byte> Fit(const Codec& codec, const AlignedBuffer<float>& rows) {
  AlignedBuffer<std::byte> basis(codec.state->basis_bytes);
  EXPECT_TRUE(FitBasis(*codec.state, {.rows = rows.data(), .tokens = rows.size() / kDim}, basis.data()).ok());
  EXPECT_TRUE(CheckBasis(*codec.state, basis.data()).ok());
  return basis;
}

double FittedError(const std::string& options, const AlignedBuffer<float>& rows) {
  const Codec codec = MakeFor(options);
  const auto basis = Fit(codec, rows);
  return RelativeError(RoundTrip(codec, rows, basis.data()), rows);
}

// On normal rows k-means finds Lloyd-Max, and a sign with the mean magnitude leaves D(3) - E|r|^2.
TEST(TurboquantNumbers, TableAndSignOfNormalRows) {
  const Keys keys(60);
  EXPECT_NEAR(FittedError("code=calibrated,rotate=none,bits=3", keys.rows), 0.03455, 4e-4);
  EXPECT_NEAR(FittedError("code=calibrated,rotate=none,bits=4", keys.rows), 0.00950, 2e-4);
  EXPECT_NEAR(FittedError("code=calibrated,rotate=none,residual=sign", keys.rows), 0.01217, 2e-4);
}

// A spectrum that falls exponentially: singular vectors concentrate what one table would like even.
TEST(TurboquantNumbers, SingularVectorsWithOneTableAreWorseThanRandom) {
  Keys keys(40);
  for (size_t i = 0; i < keys.rows.size(); ++i) keys.rows[i] *= std::exp(-0.03f * static_cast<float>(i % kDim));
  const double svd = FittedError("preset=turboesm,residual=none,bits=3", keys.rows);
  const double sign = FittedError("preset=turboesm", keys.rows);
  const double random = RelativeError(RoundTrip(MakeFor("3,scale=nc"), keys.rows), keys.rows);
  EXPECT_NEAR(random, 0.033, 0.0015);
  EXPECT_GT(svd, 1.5 * random);
  EXPECT_LT(sign, 0.7 * svd);
  EXPECT_GT(sign, 2.0 * 0.0092);
}

TEST(TurboquantNumbers, WeightsMoveTheTable) {
  const Keys keys(4);
  const Codec codec = MakeFor("code=calibrated,rotate=none,bits=1");
  std::vector<float> weights(keys.tokens());
  AlignedBuffer<float> rows(keys.rows.size());
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = (i / kDim % 2 ? 10.0f : 1.0f) * (i % 2 ? 1.0f : -1.0f);
  for (size_t t = 0; t < weights.size(); ++t) weights[t] = t % 2 ? 0.0f : 2.0f;  // only the small ones count
  AlignedBuffer<std::byte> basis(codec.state->basis_bytes);
  const FitData data = {.rows = rows.data(), .tokens = keys.tokens(), .maybe_weights = weights.data()};
  ASSERT_TRUE(FitBasis(*codec.state, data, basis.data()).ok());
  const SegmentView view(AsState(*codec.state), basis.data());
  EXPECT_FLOAT_EQ(view.table().value(0), -1.0f);
  EXPECT_FLOAT_EQ(view.table().value(1), 1.0f);
}

}  // namespace
}  // namespace kvant::turboquant
