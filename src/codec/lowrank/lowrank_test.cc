#include "codec/lowrank/lowrank.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"

namespace kvant::lowrank {
namespace {

Result<Codec> MakeFor(const std::string& text, Side side, int dim = 128) {
  const auto options = ParseCodecOptions(kInfo, text);
  EXPECT_TRUE(options.ok());
  return MakeCodec("lowrank", *options, {.side = side, .dim = dim});
}

// A large constant, `rank` directions of falling strength and noise of size 1.
AlignedBuffer<float> Rows(int tokens, int dim, int rank, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> rows(static_cast<size_t>(tokens * dim));
  for (int t = 0; t < tokens; ++t) {
    for (int c = 0; c < dim; ++c) rows[static_cast<size_t>(t * dim + c)] = normal(rng) + (c % 3 == 0 ? 4.0f : -2.0f);
    for (int j = 0; j < rank; ++j) {
      const float size = 12.0f / static_cast<float>(1 + j) * normal(rng);
      for (int c = 0; c < dim; ++c) {
        rows[static_cast<size_t>(t * dim + c)] +=
            size * std::cos(3.14159f * static_cast<float>((j + 1) * (2 * c + 1)) / static_cast<float>(2 * dim));
      }
    }
  }
  return rows;
}

struct Fitted {
  Codec codec;
  AlignedBuffer<std::byte> basis;

  BlockContext context() const { return {.basis = basis.size() > 0 ? basis.data() : nullptr}; }
};

Fitted Fit(const std::string& text, Side side, const AlignedBuffer<float>& rows, int dim = 128) {
  Fitted f{*MakeFor(text, side, dim), {}};
  f.basis = AlignedBuffer<std::byte>(f.codec.state->basis_bytes);
  if (f.basis.size() == 0) return f;
  const FitData data = {.rows = rows.data(), .tokens = rows.size() / static_cast<size_t>(dim)};
  EXPECT_TRUE(FitBasis(*f.codec.state, data, f.basis.data()).ok());
  EXPECT_TRUE(CheckBasis(*f.codec.state, f.basis.data()).ok());
  return f;
}

// Squared error of the first page of rows, summed.
double ErrorOf(const Fitted& f, const float* rows) {
  AlignedBuffer<std::byte> block(f.codec.block_bytes());
  AlignedBuffer<float> decoded(static_cast<size_t>(64 * f.codec.shape().dim));
  EXPECT_TRUE(f.codec.verbs.encode(*f.codec.state, f.context(), rows, block.data()).ok());
  EXPECT_TRUE(f.codec.verbs.decode(*f.codec.state, f.context(), block.data(), decoded.data()).ok());
  double error = 0.0;
  for (size_t i = 0; i < decoded.size(); ++i) error += std::pow(static_cast<double>(decoded[i]) - rows[i], 2);
  return error;
}

// ---- bytes

// All magnitudes are 1, so every scale is the smallest one; codes are the outer ones of 2 bits.
TEST(LowrankTest, HandComputedBlock) {
  const auto codec = MakeFor("bits=2,code=uniform,rank=0,rotate=none", Side::kValue, 16);
  ASSERT_TRUE(codec.ok());
  AlignedBuffer<float> rows(64 * 16);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = i % 2 ? -1.0f : 1.0f;
  AlignedBuffer<std::byte> block(codec->block_bytes());
  ASSERT_EQ(block.size(), 256u + 64u + 64u);
  ASSERT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
  // Byte k holds codes k, k + 256, ...: four tokens of channel (k / 4) % 16, four times.
  for (size_t k = 0; k < 256; ++k) EXPECT_EQ(block[k], k / 4 % 2 ? std::byte{0x00} : std::byte{0xFF}) << k;
  for (size_t k = 256; k < 320; ++k) EXPECT_EQ(block[k], std::byte{0}) << k;  // scale codes
  const auto* params = reinterpret_cast<const uint16_t*>(block.data() + 320);
  EXPECT_EQ(params[0], 0x3C00);  // 1
  EXPECT_EQ(params[1], 0);
}

// Four factors of 4 bits: their binary digits are the 16 channels of a tile of 1 bit, the lowest first.
TEST(LowrankTest, FactorsAreStoredAsDigits) {
  const auto codec = MakeFor("rank=4,factor_bits=4", Side::kKey, 16);
  const State& s = AsState(*codec->state);
  ASSERT_EQ(s.digits, 4);
  ASSERT_EQ(s.digit_bits, 1);
  PageChoice choice;
  choice.factors[5 * 4 + 2] = 0b1010;  // token 5, factor 2
  AlignedBuffer<std::byte> block(codec->block_bytes());
  StoreChoice(s, choice, block.data());
  for (int i = 0; i < 16; ++i) {
    const int digit = TileCode(TileOrder::kTokenLane, 1, block.data() + s.factors_ofs, 5, i);
    EXPECT_EQ(digit, i == 9 || i == 11) << i;
  }
}

double StreamBits(const Codec& codec) {
  double bytes = 0;
  for (const Stream& stream : codec.state->layout.streams()) bytes += static_cast<double>(stream.bytes);
  return bytes * 8 / (64 * codec.shape().dim);
}

// 4 + 8 / 64 + 32 / (64 * 256): the paper's NF4 with (8, fp32, 64, 256). Ours spends the 32 bits on two halves.
TEST(LowrankTest, StorageOfThePaper) {
  EXPECT_NEAR(StreamBits(*MakeFor("rank=0", Side::kKey, 256)), 4.127, 5e-4);
  EXPECT_NEAR(StreamBits(*MakeFor("rank=0,bits=3", Side::kValue, 256)), 3.127, 5e-4);
  EXPECT_NEAR(StreamBits(*MakeFor("rank=0", Side::kKey, 128)), 4.129, 5e-4);  // a page has 128 scales
  EXPECT_NEAR(StreamBits(*MakeFor("rank=8,factor_bits=4", Side::kKey, 128)), 4.129 + 0.25, 5e-4);
  EXPECT_NEAR(StreamBits(*MakeFor("rank=4,factor_bits=4", Side::kKey, 128)), 4.129 + 0.125, 5e-4);
  EXPECT_EQ(MakeFor("rank=8", Side::kKey)->state->basis_bytes, AlignUp(256 + 32 + 1024));
  EXPECT_EQ(MakeFor("rank=0", Side::kKey)->state->basis_bytes, 0u);
}

TEST(LowrankTest, RefusesWhatItCannotDo) {
  const auto message = [](const std::string& text, int dim = 128) {
    const auto codec = MakeFor(text, Side::kKey, dim);
    return codec.ok() ? std::string("accepted") : codec.status().message();
  };
  EXPECT_EQ(message("8"), "codec lowrank: bits=8 is not accepted; accepted: 2, 3, 4");
  EXPECT_EQ(message("rank=6"), "codec lowrank: rank=6 is not accepted; accepted: 0, 4, 8, 16");
  EXPECT_EQ(message("factor_bits=5"), "codec lowrank: factor_bits=5 is not accepted; accepted: 4, 8");
  EXPECT_EQ(message("rounds=17"), "codec lowrank: rounds=17 is not accepted; accepted: 0..16");
  EXPECT_EQ(message("code=lm"), "codec lowrank: code=lm is not accepted; accepted: nf, uniform");
  EXPECT_EQ(message("rank=16", 16),
            "codec lowrank: rank=16 is not accepted for a head of 16 channels; accepted: 0, 4, 8, 16");
}

TEST(LowrankTest, ScalesBeyondFp16AreRefused) {
  const auto codec = MakeFor("rank=0,rotate=none", Side::kKey);
  AlignedBuffer<float> rows(64 * 128);
  AlignedBuffer<std::byte> block(codec->block_bytes());
  std::fill_n(rows.data(), rows.size(), 1e5f);
  const Status status = codec->verbs.encode(*codec->state, {}, rows.data(), block.data());
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("lowrank: scale 100000 does not fit fp16"), std::string::npos) << status.message();
}

// ---- the decomposition

TEST(LowrankTest, DirectionsTakeWhatIsStrong) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    const AlignedBuffer<float> rows = Rows(1024, 128, 4, 1);
    const double none = ErrorOf(Fit("rank=0", side, rows), rows.data());
    const double four = ErrorOf(Fit("rank=4", side, rows), rows.data());
    const double eight = ErrorOf(Fit("rank=8,factor_bits=8", side, rows), rows.data());
    EXPECT_LT(four, 0.25 * none);
    EXPECT_LT(eight, four);
  }
}

TEST(LowrankTest, RoundsNeverAddError) {
  const AlignedBuffer<float> rows = Rows(1024, 128, 4, 2);
  for (const char* options : {"bits=2", "bits=4,factor_bits=8", "bits=3,rank=16,code=uniform"}) {
    double last = std::numeric_limits<double>::infinity();
    for (const char* rounds : {"0", "1", "2", "8"}) {
      const Fitted f = Fit(std::string(options) + ",rotate=none,rounds=" + rounds, Side::kKey, rows);
      const double error = ErrorOf(f, rows.data());
      EXPECT_LE(error, last * (1 + 1e-6)) << options << " " << rounds;
      last = error;
    }
  }
  // At 2 bits the codes leave much along the directions, and the alternation finds it.
  const double once = ErrorOf(Fit("bits=2,factor_bits=8,rounds=0,rotate=none", Side::kKey, rows), rows.data());
  const double often = ErrorOf(Fit("bits=2,factor_bits=8,rounds=8,rotate=none", Side::kKey, rows), rows.data());
  EXPECT_LT(often, 0.99 * once);
}

// Rows that the directions and the mean describe need no codes: the error is that of the factors, made up by Q.
TEST(LowrankTest, ConstantRowsComeBackFromTheMean) {
  AlignedBuffer<float> rows(1024 * 128);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = static_cast<float>(i % 128) - 50.0f;  // fp16 holds them
  const Fitted f = Fit("rank=8,rotate=none", Side::kKey, rows);
  EXPECT_EQ(ErrorOf(f, rows.data()), 0.0);
}

TEST(LowrankTest, ForeignBasesAreChecked) {
  const AlignedBuffer<float> rows = Rows(256, 128, 2, 3);
  const Fitted f = Fit("rank=8", Side::kKey, rows);
  const auto corrupted = [&](size_t ofs, uint32_t value, size_t size) {
    AlignedBuffer<std::byte> bytes(f.basis.size());
    std::memcpy(bytes.data(), f.basis.data(), bytes.size());
    std::memcpy(bytes.data() + ofs, &value, size);
    return CheckBasis(*f.codec.state, bytes.data()).code();
  };
  EXPECT_EQ(corrupted(288, 0x55, 1), StatusCode::kOk);                // any direction will do
  EXPECT_EQ(corrupted(2, 0x7C00, 2), StatusCode::kCorruption);        // infinite mean
  EXPECT_EQ(corrupted(256, 0x7FC00000, 4), StatusCode::kCorruption);  // step not a number
  EXPECT_EQ(corrupted(260, 0xBF800000, 4), StatusCode::kCorruption);  // step -1
}

}  // namespace
}  // namespace kvant::lowrank
