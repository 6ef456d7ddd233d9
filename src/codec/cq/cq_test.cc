#include "codec/cq/cq.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/cq/cq_kernels.h"
#include "codec/registry.h"

namespace kvant::cq {
namespace {

using testing::HasSubstr;

using Floats = std::vector<float>;

Result<Codec> Make(std::string_view options, const BlockShape& shape,
                   Implementation implementation = Implementation::kBest) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("cq", *parsed, shape, implementation);
}

/// A codec with codebooks.
struct Fitted {
  Codec codec;
  AlignedBuffer<std::byte> basis{codec.state->basis_bytes};

  const State& state() const { return AsState(*codec.state); }
  Codebooks books() const { return ViewBasis(state(), basis.data()); }
  BlockContext context() const { return {.basis = basis.data()}; }

  AlignedBuffer<std::byte> Encode(const float* rows) const {
    AlignedBuffer<std::byte> block(codec.block_bytes());
    const Status status = codec.verbs.encode(*codec.state, context(), rows, block.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return block;
  }
  Floats Decode(const AlignedBuffer<std::byte>& block) const {
    Floats rows(static_cast<size_t>(kTokensPerPage * codec.shape().dim));
    const Status status = codec.verbs.decode(*codec.state, context(), block.data(), rows.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return rows;
  }
};

Fitted Fit(std::string_view options, int dim, const FitData& data, Side side = Side::kKey) {
  Fitted f{*Make(options, {side, dim})};
  const Status status = FitBasis(f.state(), data, f.basis.data());
  EXPECT_TRUE(status.ok()) << status.message();
  EXPECT_TRUE(CheckBasis(f.state(), f.basis.data()).ok());
  return f;
}

/// Rows whose neighbouring channels have correlation `rho`; 0: independent.
Floats Rows(size_t tokens, int dim, float rho, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  Floats rows(tokens * static_cast<size_t>(dim));
  for (size_t i = 0; i < rows.size(); ++i) {
    const float before = i % static_cast<size_t>(dim) == 0 ? normal(random) : rows[i - 1];
    rows[i] = rho * before + std::sqrt(1 - rho * rho) * normal(random);
  }
  return rows;
}

/// Squared error of the pages of `rows` over their energy.
double SquaredError(const Fitted& f, const Floats& rows) {
  double error = 0, energy = 0;
  const size_t page_values = static_cast<size_t>(kTokensPerPage * f.codec.shape().dim);
  for (size_t first = 0; first < rows.size(); first += page_values) {
    const Floats decoded = f.Decode(f.Encode(rows.data() + first));
    for (size_t i = 0; i < page_values; ++i) {
      error += std::pow(decoded[i] - rows[first + i], 2);
      energy += std::pow(rows[first + i], 2);
    }
  }
  return error / energy;
}

// ---- bytes

TEST(Cq, HandComputedBlock) {
  for (const Implementation implementation : {Implementation::kReference, Implementation::kBest}) {
    Fitted f{*Make("channels=2", {Side::kKey, 16}, implementation)};
    // Values are -4 + level / 4; centroid k of group g is (k, 255 - k) in levels, but for code 9 of group 1, (0, 0).
    const Codebooks books = f.books();
    for (int c = 0; c < 16; ++c) {
      const_cast<float*>(books.offsets)[c] = -4.0f;
      for (int k = 0; k < 256; ++k) {
        const_cast<uint8_t*>(books.centroids)[c * 256 + k] = static_cast<uint8_t>(c % 2 == 0 ? k : 255 - k);
      }
    }
    for (int g = 0; g < 8; ++g) {
      const float map[] = {0.25f, 0.0f, 0.25f};
      std::copy_n(map, 3, const_cast<float*>(books.maps) + 3 * g);
    }
    const_cast<uint8_t*>(books.centroids)[2 * 256 + 9] = const_cast<uint8_t*>(books.centroids)[3 * 256 + 9] = 0;
    ASSERT_TRUE(CheckBasis(f.state(), f.basis.data()).ok());

    Floats rows(64 * 16, -4.0f);  // levels (0, 0)
    rows[5 * 16 + 4] = 1.1f;      // token 5, group 2: levels (20.4 -> 20, 0)
    rows[6 * 16 + 5] = 100.0f;    // token 6, group 2: (0, 255 of 416)
    const AlignedBuffer<std::byte> block = f.Encode(rows.data());
    ASSERT_EQ(block.size(), 8u * 64);
    // (0, 0) is as far from (k, 255 - k) as k^2 + (255 - k)^2 says: least for 127 and 128, of which the first wins.
    std::vector<int> expected(8 * 64, 127);
    for (int t = 0; t < 64; ++t) expected[64 + static_cast<size_t>(t)] = 9;
    expected[2 * 64 + 5] = 137;  // (20, 0): (k - 20)^2 + (255 - k)^2 is least between 137 and 138
    expected[2 * 64 + 6] = 0;
    for (size_t i = 0; i < block.size(); ++i) ASSERT_EQ(static_cast<int>(block[i]), expected[i]) << i;

    const Floats decoded = f.Decode(block);
    EXPECT_EQ(decoded[0], -4.0f + 127 / 4.0f);
    EXPECT_EQ(decoded[1], -4.0f + 128 / 4.0f);
    EXPECT_EQ(decoded[2], -4.0f);
    EXPECT_EQ(decoded[5 * 16 + 4], -4.0f + 137 / 4.0f);
    EXPECT_EQ(decoded[6 * 16 + 5], -4.0f + 255 / 4.0f);
  }
}

TEST(Cq, HighBitsOfTenBitCodes) {
  const Codec codec = *Make("channels=8,bits=10", {Side::kValue, 16});
  const State& s = AsState(*codec.state);
  AlignedBuffer<std::byte> block(codec.block_bytes());
  uint16_t codes[64] = {};
  codes[0] = 0x3FF, codes[17] = 0x155, codes[63] = 0x200;
  StoreCodes(s, 1, codes, block.data());
  const auto at = [&](size_t i) { return static_cast<int>(block[i]); };
  EXPECT_EQ(at(64), 0xFF);
  EXPECT_EQ(at(64 + 17), 0x55);
  EXPECT_EQ(at(2 * 64 + 16), 3);            // token 0: field 0 of byte 0
  EXPECT_EQ(at(2 * 64 + 16 + 1), 1 << 2);   // token 17: field 1 of byte 1
  EXPECT_EQ(at(2 * 64 + 16 + 15), 2 << 6);  // token 63: field 3 of byte 15
  for (int t = 0; t < 64; ++t) EXPECT_EQ(CodesOf(s, block.data()).at(1, t), codes[t]);
}

// ---- size

TEST(Cq, CodebooksHaveTheParametersOfThePaper) {
  const auto millions = [](std::string_view options) {  // LLaMA-7B: 32 layers, K and V, 32 heads of 128
    const Codec codec = *Make(options, {Side::kKey, 128});
    const State& s = AsState(*codec.state);
    const size_t maps = sizeof(float) * static_cast<size_t>(128 + s.groups() * TriangleSize(s.channels));
    return 32.0 * 2 * 32 * static_cast<double>(s.basis_bytes - maps) / 1e6;  // one byte each
  };
  EXPECT_NEAR(millions("channels=8"), 67.1, 0.05);
  EXPECT_NEAR(millions("channels=4"), 67.1, 0.05);
  EXPECT_NEAR(millions("channels=8,bits=10"), 268.4, 0.05);
}

TEST(Cq, EffectiveBitsCountTheCodebooks) {
  const Codec codec = *Make("channels=8", {Side::kKey, 128});
  const double payload = static_cast<double>(codec.block_bytes()) * 8 / (64 * 128);
  const double basis_bits = static_cast<double>(codec.state->basis_bytes) * 8 / 128;
  const double paper_bits = 16.0 * 256;  // fp16 centroids alone
  EXPECT_EQ(payload, 1.0);
  EXPECT_NEAR(payload + paper_bits / 4096, 2.00, 0.005);
  EXPECT_NEAR(payload + paper_bits / 32768, 1.125, 0.0005);
  EXPECT_NEAR(payload + basis_bits / 4096, 1.543, 0.0005);
  EXPECT_NEAR(payload + basis_bits / 32768, 1.068, 0.0005);
}

// ---- quality

TEST(Cq, CorrelatedChannelsShareTheirBits) {
  const Floats sample = Rows(4096, 64, 0.9f, 1);
  const Floats rows = Rows(256, 64, 0.9f, 2);
  const Floats alone = Rows(4096, 64, 0.0f, 3);
  const Floats rows_alone = Rows(256, 64, 0.0f, 4);
  struct Case {
    const char* options;
    double scalar;   ///< squared error of the best scalar code of so many bits on N(0,1)
    double coupled;  ///< measured
  };
  for (const Case& c :
       {Case{"channels=2", 0.009506, 0.00395}, {"channels=4", 0.1175, 0.0306}, {"channels=8", 0.3634, 0.0818}}) {
    const double error = SquaredError(Fit(c.options, 64, {.rows = sample.data(), .tokens = 4096}), rows);
    EXPECT_NEAR(error, c.coupled, 0.1 * c.coupled) << c.options;
    EXPECT_LT(error, 0.6 * c.scalar) << c.options;
    // Independent channels leave only what a lattice gains over a cube, less what the sample does not tell.
    const double independent = SquaredError(Fit(c.options, 64, {.rows = alone.data(), .tokens = 4096}), rows_alone);
    EXPECT_NEAR(independent, c.scalar, 0.12 * c.scalar) << c.options;
  }
}

TEST(Cq, DecodedBlockEncodesToItself) {
  for (const char* options : {"channels=2", "channels=4", "channels=8", "channels=8,bits=10"}) {
    Floats sample = Rows(2048, 48, 0.5f, 5);
    for (size_t i = 0; i < sample.size(); i += 48) sample[i] += 30.0f;  // a channel far from zero
    const Fitted f = Fit(options, 48, {.rows = sample.data(), .tokens = 2048});
    const AlignedBuffer<std::byte> block = f.Encode(sample.data());
    EXPECT_THAT(f.Encode(f.Decode(block).data()).span(), testing::ElementsAreArray(block.span())) << options;
  }
}

/// Squared error of the rows of a fit, with centroids on the grid and with the exact means of their rows.
std::pair<double, double> GridAndFreeError(const Fitted& f, const Floats& rows) {
  const State& s = f.state();
  const size_t tokens = rows.size() / static_cast<size_t>(s.shape.dim);
  const size_t channels = static_cast<size_t>(s.channels);
  std::vector<double> sums(static_cast<size_t>(s.shape.dim) << s.bits),
      counts(static_cast<size_t>(s.groups()) << s.bits);
  std::vector<double> squares(counts.size());
  double grid = 0;
  for (size_t first = 0; first < tokens; first += 64) {
    const AlignedBuffer<std::byte> block = f.Encode(rows.data() + first * static_cast<size_t>(s.shape.dim));
    const Floats decoded = f.Decode(block);
    for (size_t i = 0; i < decoded.size(); ++i) {
      const double x = static_cast<double>(rows[first * static_cast<size_t>(s.shape.dim) + i]);
      const size_t channel = i % static_cast<size_t>(s.shape.dim);
      const size_t group = channel / channels;
      const auto code = static_cast<size_t>(
          CodesOf(s, block.data()).at(static_cast<int>(group), static_cast<int>(i / static_cast<size_t>(s.shape.dim))));
      grid += std::pow(static_cast<double>(decoded[i]) - x, 2);
      sums[(channel << s.bits) + code] += x;
      squares[(group << s.bits) + code] += x * x;
      if (channel % channels == 0) counts[(group << s.bits) + code] += 1;
    }
  }
  double free = 0;
  for (const double square : squares) free += square;
  for (size_t i = 0; i < sums.size(); ++i) {
    const size_t group = (i >> s.bits) / channels;
    const double count = counts[(group << s.bits) + (i & static_cast<size_t>(s.num_codes() - 1))];
    if (count > 0) free -= sums[i] * sums[i] / count;
  }
  return {grid, free};
}

TEST(Cq, CentroidsInBytesCostLittle) {
  const Floats rows = Rows(4096, 32, 0.5f, 6);
  for (const auto& [options, bound] : {std::pair{"channels=2", 1.02}, {"channels=4", 1.003}, {"channels=8", 1.002}}) {
    const auto [grid, free] = GridAndFreeError(Fit(options, 32, {.rows = rows.data(), .tokens = 4096}), rows);
    EXPECT_GT(grid, free) << options;
    EXPECT_LT(grid, bound * free) << options;
  }
}

// ---- fitting

TEST(Cq, WeightsSayWhichRowsCount) {
  const Floats rows = Rows(2048, 16, 0.0f, 7);
  Floats both = rows, weights(4096, 1.0f);
  for (const float x : rows) both.push_back(x * 3.0f + 5.0f);
  std::fill(weights.begin(), weights.begin() + 2048, 1.999f);
  std::fill(weights.begin() + 2048, weights.end(), 0.001f);
  const Fitted plain = Fit("channels=8", 16, {.rows = both.data(), .tokens = 4096});
  const Fitted weighted = Fit("channels=8", 16, {.rows = both.data(), .tokens = 4096, .maybe_weights = weights.data()});
  EXPECT_LT(SquaredError(weighted, rows), 0.9 * SquaredError(plain, rows));
}

TEST(Cq, MetricSaysWhatAnErrorCosts) {
  constexpr size_t kDim = 16;
  const Floats rows = Rows(4096, kDim, 0.3f, 8);
  // Errors along the sum of channels 8k and 8k + 1 count 100 times as much as others.
  std::vector<double> metric(kDim * kDim);
  for (size_t i = 0; i < kDim; ++i) metric[i * kDim + i] = 1.0;
  for (size_t i = 0; i < kDim; i += 8) {
    metric[i * kDim + i] += 50, metric[(i + 1) * kDim + i + 1] += 50;
    metric[i * kDim + i + 1] += 50, metric[(i + 1) * kDim + i] += 50;
  }
  const auto cost = [&](const Fitted& f) {
    double total = 0;
    for (size_t first = 0; first < rows.size(); first += 64 * kDim) {
      const Floats decoded = f.Decode(f.Encode(rows.data() + first));
      for (size_t t = 0; t < 64 * kDim; t += kDim) {
        for (size_t i = 0; i < kDim; ++i) {
          for (size_t j = 0; j < kDim; ++j) {
            total += metric[i * kDim + j] * static_cast<double>(decoded[t + i] - rows[first + t + i]) *
                     static_cast<double>(decoded[t + j] - rows[first + t + j]);
          }
        }
      }
    }
    return total;
  };
  for (const char* options : {"channels=4", "channels=8"}) {
    const Fitted plain = Fit(options, kDim, {.rows = rows.data(), .tokens = 4096});
    const Fitted fitted = Fit(options, kDim, {.rows = rows.data(), .tokens = 4096, .maybe_metric = metric.data()});
    EXPECT_LT(cost(fitted), 0.5 * cost(plain)) << options;
  }
}

TEST(Cq, MetricsThatAreNoneAreRefused) {
  const Floats rows = Rows(64, 16, 0.0f, 9);
  std::vector<double> metric(256);
  for (size_t i = 0; i < 16; ++i) metric[i * 17] = i == 13 ? -5.0 : 1.0;
  const Codec codec = *Make("", {Side::kValue, 16});
  AlignedBuffer<std::byte> basis(codec.state->basis_bytes);
  const Status status =
      FitBasis(*codec.state, {.rows = rows.data(), .tokens = 64, .maybe_metric = metric.data()}, basis.data());
  EXPECT_THAT(status.message(), HasSubstr("the metric of channels 12..15 is not positive"));
}

TEST(Cq, FewerRowsThanCentroidsAreKept) {
  const Floats rows = Rows(64, 32, 0.0f, 10);
  for (const char* options : {"channels=2", "channels=8", "channels=8,bits=10"}) {
    const Fitted f = Fit(options, 32, {.rows = rows.data(), .tokens = 64});
    EXPECT_LT(SquaredError(f, rows), 1e-4) << options;  // a level is a fortieth of a standard deviation
  }
}

TEST(Cq, ConstantRowsAndOutliersGiveCodebooks) {
  const Fitted constant = Fit("", 16, {.rows = Floats(100 * 16, 2.5f).data(), .tokens = 100});
  for (const float x : constant.Decode(constant.Encode(Floats(64 * 16, 2.5f).data()))) EXPECT_NEAR(x, 2.5f, 1e-4f);
  const Fitted zero = Fit("", 16, {.rows = Floats(100 * 16).data(), .tokens = 100});
  for (const float x : zero.Decode(zero.Encode(Floats(64 * 16).data()))) EXPECT_NEAR(x, 0.0f, 1e-3f);
  // One row a thousand times larger must not take the grid from the others.
  Floats rows = Rows(2048, 16, 0.0f, 11);
  const Floats others(rows.begin() + 16 * 64, rows.begin() + 16 * 128);
  for (size_t c = 0; c < 16; ++c) rows[c] *= 1000.0f;
  EXPECT_LT(SquaredError(Fit("channels=2", 16, {.rows = rows.data(), .tokens = 2048}), others), 0.2);
}

TEST(Cq, FitsAreTheSameOnEveryTarget) {
  const Floats rows = Rows(700, 48, 0.5f, 12);
  for (const char* options : {"channels=2", "channels=4", "channels=8,bits=10"}) {
    const Fitted best = Fit(options, 48, {.rows = rows.data(), .tokens = 700});
    for (const std::string& target : SimdTargets()) {
      ASSERT_TRUE(SetSimdTarget(target));
      const Fitted other = Fit(options, 48, {.rows = rows.data(), .tokens = 700});
      EXPECT_THAT(other.basis.span(), testing::ElementsAreArray(best.basis.span())) << options << " on " << target;
    }
    SetSimdTarget("");
  }
}

// ---- what is refused

TEST(Cq, RefusesWhatItCannotDo) {
  const auto error = [](std::string_view options) { return Make(options, {Side::kKey, 64}).status(); };
  EXPECT_EQ(error("channels=3").message(), "codec cq: channels=3 is not accepted; accepted: 2, 4, 8");
  EXPECT_EQ(error("bits=9").message(), "codec cq: bits=9 is not accepted; accepted: 8; 10 with channels=8");
  EXPECT_THAT(error("bits=10").message(), HasSubstr("bits=10 is not accepted with channels=4; accepted: 8; 10 with"));
  EXPECT_EQ(error("rope=before").code(), StatusCode::kNotSupported);
  EXPECT_THAT(error("rope=before").message(), HasSubstr("rope=before is not supported by this version"));
  EXPECT_THAT(error("rope=never").message(), HasSubstr("rope=never is not accepted"));
}

TEST(Cq, NeedsItsCodebooks) {
  for (const Implementation implementation : {Implementation::kReference, Implementation::kBest}) {
    const Codec codec = *Make("", {Side::kKey, 64}, implementation);
    EXPECT_TRUE(codec.state->needs_calibration);
    AlignedBuffer<std::byte> block(codec.block_bytes());
    Floats rows(64 * 64);
    EXPECT_THAT(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).message(), HasSubstr("no codebooks"));
    EXPECT_THAT(codec.verbs.decode(*codec.state, {}, block.data(), rows.data()).message(), HasSubstr("no codebooks"));
    EXPECT_THAT(FitBasis(*codec.state, {}, nullptr).message(), HasSubstr("no rows"));
  }
}

TEST(Cq, ForeignBasesAreChecked) {
  const Floats rows = Rows(256, 64, 0.0f, 13);
  Fitted f = Fit("", 64, {.rows = rows.data(), .tokens = 256});
  const auto with = [&](const float* at, float value) {
    auto* changed = const_cast<float*>(at);
    const float kept = std::exchange(*changed, value);
    const Status status = CheckBasis(f.state(), f.basis.data());
    *changed = kept;
    return status.code();
  };
  const Codebooks books = f.books();
  EXPECT_EQ(with(books.offsets + 63, books.offsets[63]), StatusCode::kOk);
  EXPECT_EQ(with(books.offsets + 63, NAN), StatusCode::kCorruption);
  EXPECT_EQ(with(books.offsets, 1e8f), StatusCode::kCorruption);
  EXPECT_EQ(with(books.maps + 3, INFINITY), StatusCode::kCorruption);
  EXPECT_EQ(with(books.maps, 0.0f), StatusCode::kCorruption);    // singular
  EXPECT_EQ(with(books.maps, 1e-12f), StatusCode::kCorruption);  // as good as singular
}

// ---- kernels

TEST(Cq, FactorsFollowTheRanges) {
  const float ranges[] = {100.0f, 1.0f, 0.0f, 49.0f};
  uint16_t factors[4];
  ScoreTable table = {nullptr, factors, 0.0f, 0.0f};
  ChooseFactors(4, ranges, &table);
  EXPECT_THAT(factors, testing::ElementsAre(169, 2, 1, 83));  // of the 253 that are free, shares of 150
  EXPECT_FLOAT_EQ(table.step, 100.0f / (255 * 169));
  ChooseFactors(1, ranges, &table);
  EXPECT_EQ(factors[0], kFactorSum - 1);
  EXPECT_GE(table.step * 255 * factors[0], 99.99f);
  ChooseFactors(1, ranges + 2, &table);
  EXPECT_EQ(table.step, 0.0f);
}

class CqKernels : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override { ASSERT_TRUE(SetSimdTarget(GetParam())); }
  void TearDown() override { SetSimdTarget(""); }
};

TEST_P(CqKernels, DoAsThePlainOnes) {
  for (const char* options : {"channels=2", "channels=4", "channels=8", "channels=8,bits=10"}) {
    const int dim = 48;
    Fitted f{*Make(options, {Side::kKey, dim})};
    const Codebooks b = f.books();
    std::mt19937 random(14);
    for (size_t i = 0; i < (size_t{48} << b.bits); ++i)
      const_cast<uint8_t*>(b.centroids)[i] = static_cast<uint8_t>(random());
    AlignedBuffer<uint8_t> levels(64 * 48), want_levels(64 * 48), got_levels(64 * 48);
    for (uint8_t& level : levels.span()) level = static_cast<uint8_t>(random());

    AlignedBuffer<std::byte> block(f.codec.block_bytes());
    for (int g = 0; g < b.groups(); ++g) {
      alignas(64) uint16_t want[64], got[64];
      PlainKernels().search(b, g, levels.data(), want);
      GetKernels().search(b, g, levels.data(), got);
      ASSERT_THAT(got, testing::ElementsAreArray(want)) << options << " group " << g;
      StoreCodes(f.state(), g, want, block.data());
    }
    const Codes codes = CodesOf(f.state(), block.data());
    for (const TileOrder order : {TileOrder::kTokenLane, TileOrder::kChannelLane}) {
      PlainKernels().expand(b, order, codes, want_levels.data());
      GetKernels().expand(b, order, codes, got_levels.data());
      ASSERT_THAT(got_levels.span(), testing::ElementsAreArray(want_levels.span())) << options;
    }

    constexpr int kHeads = 5;
    const size_t table_size = static_cast<size_t>(b.groups()) << b.bits;
    const Floats queries = Rows(kHeads, dim, 0.0f, 15);
    AlignedBuffer<uint8_t> entries(2 * kHeads * table_size);
    AlignedBuffer<float> scratch(kHeads * table_size), want_scores(kHeads * 64), got_scores(kHeads * 64);
    ScoreTable want[kHeads], got[kHeads];
    uint16_t factors[2][kHeads][24];
    for (size_t h = 0; h < kHeads; ++h) {
      want[h] = {entries.data() + 2 * h * table_size, factors[0][h], 0.0f, 0.0f};
      got[h] = {want[h].entries + table_size, factors[1][h], 0.0f, 0.0f};
    }
    PlainKernels().fill_tables(b, queries.data(), kHeads, scratch.data(), want);
    GetKernels().fill_tables(b, queries.data(), kHeads, scratch.data(), got);
    for (int h = 0; h < kHeads; ++h) {
      EXPECT_NEAR(got[h].step, want[h].step, 1e-5f * want[h].step);
      EXPECT_NEAR(got[h].base, want[h].base, 1e-4f * std::abs(want[h].base));
      for (int g = 0; g < b.groups(); ++g) EXPECT_EQ(got[h].factors[g], want[h].factors[g]);
      for (size_t i = 0; i < table_size; ++i) ASSERT_NEAR(got[h].entries[i], want[h].entries[i], 1) << options;
    }
    PlainKernels().score(b, codes, want, kHeads, want_scores.data());
    GetKernels().score(b, codes, want, kHeads, got_scores.data());
    for (size_t i = 0; i < want_scores.size(); ++i) ASSERT_NEAR(got_scores[i], want_scores[i], 1e-3f) << options;
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, CqKernels, testing::ValuesIn(SimdTargets()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace kvant::cq
