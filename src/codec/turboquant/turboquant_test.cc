#include "codec/turboquant/turboquant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/test_rows.h"

namespace kvant::turboquant {
namespace {

Result<Codec> MakeFor(const std::string& text, Side side, int dim = 128) {
  const auto options = ParseCodecOptions(kInfo, text);
  EXPECT_TRUE(options.ok());
  return MakeCodec("turboquant", *options, {.side = side, .dim = dim});
}

struct Fitted {
  Codec codec;
  AlignedBuffer<std::byte> basis;

  const State& state() const { return AsState(*codec.state); }
  BlockContext context() const { return {.basis = basis.size() > 0 ? basis.data() : nullptr}; }
  AlignedBuffer<std::byte> Encode(const float* rows) const {
    AlignedBuffer<std::byte> block(codec.block_bytes());
    const Status status = codec.verbs.encode(*codec.state, context(), rows, block.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return block;
  }
  AlignedBuffer<float> Decode(const AlignedBuffer<std::byte>& block) const {
    AlignedBuffer<float> rows(static_cast<size_t>(kTokensPerPage * codec.shape().dim));
    const Status status = codec.verbs.decode(*codec.state, context(), block.data(), rows.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return rows;
  }
};

Fitted Fit(const std::string& text, Side side, const AlignedBuffer<float>& rows, int dim = 128) {
  Fitted f{*MakeFor(text, side, dim), {}};
  f.basis = AlignedBuffer<std::byte>(f.codec.state->basis_bytes);
  const FitData data = {.rows = rows.data(), .tokens = rows.size() / static_cast<size_t>(dim)};
  EXPECT_TRUE(FitBasis(*f.codec.state, data, f.basis.data()).ok());
  EXPECT_TRUE(CheckBasis(*f.codec.state, f.basis.data()).ok());
  return f;
}

// ---- bytes

// Values +-1 in equal number and no rotation: the gain is 1, all codes are the inner ones of 1 bit, and the unbiased
// scale brings them back exactly.
TEST(TurboquantTest, HandComputedBlock) {
  const auto codec = MakeFor("bits=1,rotate=none", Side::kValue, 16);
  ASSERT_TRUE(codec.ok());
  AlignedBuffer<float> rows(64 * 16);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = i % 2 ? -1.0f : 1.0f;
  std::fill_n(rows.data() + 3 * 16, 16, 0.0f);
  AlignedBuffer<std::byte> block(codec->block_bytes());
  ASSERT_EQ(block.size(), 128u + 128u);
  ASSERT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
  const auto* scales = reinterpret_cast<const uint16_t*>(block.data());
  for (size_t t = 0; t < 64; ++t) EXPECT_EQ(scales[t], t == 3 ? 0 : 0x3D03) << t;  // 1 / 0.79788
  // Byte k holds codes k, k + 128, ...: number ((token / 4) * 16 + channel) * 4 + token % 4. Zeros count as positive.
  for (size_t k = 0; k < 128; ++k) {
    const bool even = k / 4 % 2 == 0;
    const int token_3_is_here = k < 64 && k % 4 == 3 ? 1 : 0;
    EXPECT_EQ(block[128 + k], even ? std::byte{0xFF} : std::byte(token_3_is_here)) << k;
  }
}

TEST(TurboquantTest, EffectiveBits) {
  const auto bits = [](const std::string& options, Side side, int dim = 128) {
    const auto codec = MakeFor(options, side, dim);
    double bytes = 0;
    for (const Stream& stream : codec->state->layout.streams()) bytes += static_cast<double>(stream.bytes);
    return bytes * 8 / (64.0 * dim);
  };
  EXPECT_EQ(bits("4", Side::kKey), 4.125);
  EXPECT_EQ(bits("1", Side::kValue), 1.125);
  EXPECT_EQ(bits("2.5", Side::kKey), 2.5);  // 32 x 3 + 96 x 2 bits and two norms
  EXPECT_EQ(bits("3.5", Side::kValue), 3.5);
  EXPECT_EQ(bits("2.5", Side::kKey, 64), 2.75);  // a norm counts twice as much
  EXPECT_EQ(bits("2.5", Side::kKey, 80), 2.6);   // 16 of 80 channels
  EXPECT_EQ(bits("4,residual=gaussian", Side::kKey), 4.25);
  EXPECT_EQ(bits("preset=turboesm", Side::kKey), 4.0);
  EXPECT_EQ(bits("preset=turboesm", Side::kValue), 3.0);
  EXPECT_EQ(MakeFor("2.5", Side::kKey)->state->basis_bytes, 64u);
  EXPECT_EQ(MakeFor("4", Side::kKey)->state->basis_bytes, 0u);
}

TEST(TurboquantTest, RefusesWhatItCannotDo) {
  const auto message = [](const std::string& text, Side side = Side::kKey, int dim = 128) {
    const auto codec = MakeFor(text, side, dim);
    return codec.ok() ? std::string("accepted") : codec.status().message();
  };
  EXPECT_EQ(message("5"), "codec turboquant: bits=5 is not accepted; accepted: 1..4 in steps of 0.5");
  EXPECT_EQ(message("2.25"), "codec turboquant: bits=2.25 is not accepted; accepted: 1..4 in steps of 0.5");
  EXPECT_EQ(message("rotate=random"),
            "codec turboquant: rotate=random is not accepted; accepted: hadamard, dense, svd, none");
  EXPECT_EQ(
      message("residual=gaussian", Side::kValue),
      "codec turboquant: residual=gaussian is not accepted for values; accepted: none, gaussian, orthogonal, sign");
  EXPECT_EQ(message("residual=sign"),
            "codec turboquant: residual=sign is not accepted with code=lm; accepted: none, gaussian, orthogonal, sign");
  EXPECT_NE(message("code=calibrated,scale=nc").find("with code=calibrated, which has none"), std::string::npos);
  EXPECT_NE(message("code=calibrated,bits=2.5").find("which knows one class of channels"), std::string::npos);
  EXPECT_NE(message("1.5,residual=gaussian").find("with a residual"), std::string::npos);
  EXPECT_NE(message("1.5", Side::kKey, 16).find("for a head of 16 channels"), std::string::npos);
  EXPECT_NE(message("preset=esm").find("accepted: none, paper, turboesm"), std::string::npos);
  EXPECT_EQ(message("preset=turboesm,rotate=hadamard"), "accepted");
}

TEST(TurboquantTest, CalibratedOptionsNeedABasis) {
  for (const char* options : {"preset=turboesm", "rotate=svd", "code=calibrated"}) {
    const auto codec = MakeFor(options, Side::kKey);
    ASSERT_TRUE(codec->state->needs_calibration);
    AlignedBuffer<float> rows(64 * 128);
    AlignedBuffer<std::byte> block(codec->block_bytes());
    EXPECT_EQ(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(codec->verbs.decode(*codec->state, {}, block.data(), rows.data()).code(), StatusCode::kInvalidArgument);
  }
  EXPECT_FALSE(MakeFor("2.5", Side::kKey)->state->needs_calibration);
}

// ---- channel classes

TEST(TurboquantTest, OutliersAreTheStrongestChannelsAndKeepMoreBits) {
  constexpr size_t kTokens = 256;
  AlignedBuffer<float> rows = NormalRows(kTokens, 128, 1);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] *= i % 128 % 4 == 1 ? 8.0f : 1.0f;  // channels 1, 5, 9, ...
  const Fitted f = Fit("2.5", Side::kKey, rows);
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(static_cast<size_t>(f.basis[i]), 4 * i + 1);

  const auto error = [&](const Fitted& subject, size_t step, size_t phase) {
    const auto decoded = subject.Decode(subject.Encode(rows.data()));
    double sum = 0.0;
    double norm = 0.0;
    for (size_t i = 0; i < decoded.size(); ++i) {
      if (i % 128 % step != phase) continue;
      sum += std::pow(decoded[i] - rows[i], 2);
      norm += std::pow(rows[i], 2);
    }
    return sum / norm;
  };
  EXPECT_NEAR(error(f, 4, 1), 0.0345 / (1 - 0.0345), 0.004);  // 3 bits
  EXPECT_NEAR(error(f, 4, 2), 0.1175 / (1 - 0.1175), 0.012);  // 2 bits, undisturbed by the strong channels
  const Fitted unfitted{*MakeFor("2.5", Side::kKey), {}};
  EXPECT_GT(error(unfitted, 4, 2), 1.0);
}

TEST(TurboquantTest, ForeignBasesAreChecked) {
  const AlignedBuffer<float> rows = NormalRows(256, 128, 2);
  const auto corrupted = [](const Fitted& f, size_t ofs, uint32_t value, size_t size) {
    AlignedBuffer<std::byte> bytes(f.basis.size());
    std::memcpy(bytes.data(), f.basis.data(), bytes.size());
    std::memcpy(bytes.data() + ofs, &value, size);
    return CheckBasis(f.state(), bytes.data()).code();
  };
  const Fitted classes = Fit("3.5", Side::kKey, rows);
  EXPECT_EQ(corrupted(classes, 3, static_cast<uint32_t>(classes.basis[3]), 1), StatusCode::kOk);
  EXPECT_EQ(corrupted(classes, 3, static_cast<uint32_t>(classes.basis[4]), 1), StatusCode::kCorruption);
  EXPECT_EQ(corrupted(classes, 31, 200, 1), StatusCode::kCorruption);  // no such channel
  const Fitted esm = Fit("preset=turboesm", Side::kKey, rows);
  EXPECT_EQ(corrupted(esm, 0, 3, 4), StatusCode::kCorruption);            // width
  EXPECT_EQ(corrupted(esm, 4, 0, 4), StatusCode::kCorruption);            // step 0
  EXPECT_EQ(corrupted(esm, 4, 0x7F800000, 4), StatusCode::kCorruption);   // infinite step
  EXPECT_EQ(corrupted(esm, 24, 0x7FC00000, 4), StatusCode::kCorruption);  // threshold not a number
  EXPECT_EQ(corrupted(esm, 24, 0x42C80000, 4), StatusCode::kCorruption);  // above the next one
  EXPECT_EQ(corrupted(esm, 96, 0xC000, 2), StatusCode::kCorruption);      // reflector scale -2
}

}  // namespace
}  // namespace kvant::turboquant
