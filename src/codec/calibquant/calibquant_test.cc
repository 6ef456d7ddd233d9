#include "codec/calibquant/calibquant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "base/aligned_buffer.h"
#include "base/float16.h"
#include "codec/registry.h"
#include "codec/test_rows.h"

namespace kvant::calibquant {
namespace {

using testing::HasSubstr;

Result<Codec> Make(std::string_view options, Side side, int dim,
                   Implementation implementation = Implementation::kBest) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("calibquant", *parsed, {.side = side, .dim = dim}, implementation);
}

/// A basis fitted to rows; empty for statistics of the page.
AlignedBuffer<std::byte> Fit(const Codec& codec, const AlignedBuffer<float>& rows) {
  AlignedBuffer<std::byte> basis(codec.state->basis_bytes);
  const size_t tokens = rows.size() / static_cast<size_t>(codec.shape().dim);
  EXPECT_TRUE(FitBasis(*codec.state, {.rows = rows.data(), .tokens = tokens}, basis.data()).ok());
  EXPECT_TRUE(CheckBasis(*codec.state, basis.data()).ok());
  return basis;
}

double Square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

/// Mean squared error on unit normal rows about `offset`, over pages that share a basis or not.
double SquaredError(std::string_view options, Side side, float offset = 0.0f) {
  constexpr int kDim = 64, kPages = 28;  // 1,792 tokens: the images of the paper
  const Codec codec = *Make(options, side, kDim);
  double sum = 0;
  for (unsigned seed = 0; seed < 4; ++seed) {
    const AlignedBuffer<float> rows = NormalRows(kPages * 64, kDim, seed, offset);
    AlignedBuffer<std::byte> basis;
    if (IsSegment(*codec.state)) basis = Fit(codec, rows);
    AlignedBuffer<std::byte> block(codec.block_bytes());
    AlignedBuffer<float> decoded(64 * kDim);
    for (size_t page = 0; page < rows.size(); page += decoded.size()) {
      EXPECT_TRUE(codec.verbs.encode(*codec.state, {.basis = basis.data()}, rows.data() + page, block.data()).ok());
      EXPECT_TRUE(codec.verbs.decode(*codec.state, {.basis = basis.data()}, block.data(), decoded.data()).ok());
      for (size_t i = 0; i < decoded.size(); ++i) sum += Square(rows[page + i] - decoded[i]);
    }
  }
  return sum / (4 * kPages * 64 * kDim);
}

// ---- bytes

TEST(CalibQuant, HandComputedSegmentBlock) {
  const Result<Codec> codec = Make("stats=segment", Side::kKey, 16);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 128u);  // codes and nothing else
  AlignedBuffer<std::byte> basis(codec->state->basis_bytes);
  ASSERT_EQ(basis.size(), 64u);
  auto* words = reinterpret_cast<F16*>(basis.data());
  for (size_t c = 0; c < 16; ++c) {
    words[c] = ToF16(2.0f);                               // scale
    words[16 + c] = ToF16(static_cast<float>(c) - 1.0f);  // min: levels c - 1 and c + 1
  }
  AlignedBuffer<float> rows(64 * 16);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 16; ++c) rows[t * 16 + c] = static_cast<float>(c) + (t % 2 == 0 ? 7.0f : -0.5f);
  }
  AlignedBuffer<std::byte> block(128);
  ASSERT_TRUE(codec->verbs.encode(*codec->state, {.basis = basis.data()}, rows.data(), block.data()).ok());
  for (size_t k = 0; k < 128; ++k) ASSERT_EQ(block[k], k / 4 % 2 == 0 ? std::byte{0xFF} : std::byte{0x00}) << k;
  ASSERT_TRUE(codec->verbs.decode(*codec->state, {.basis = basis.data()}, block.data(), rows.data()).ok());
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 16; ++c) {
      ASSERT_EQ(rows[t * 16 + c], static_cast<float>(c) + (t % 2 == 0 ? 1.0f : -1.0f)) << t << ' ' << c;
    }
  }
}

TEST(CalibQuant, BitsOfAnImageAreThePapers) {
  // 1,792 visual tokens with statistics of their own: 1.018 bits.
  const Codec segment = *Make("stats=segment", Side::kKey, 128);
  const double bytes =
      28 * static_cast<double>(segment.block_bytes()) + static_cast<double>(segment.state->basis_bytes);
  EXPECT_NEAR(8 * bytes / (1792 * 128), 1.018, 0.0005);
  EXPECT_EQ(Make("", Side::kKey, 128)->block_bytes() * 16, 3u * 64 * 128);  // per page: 1.5
}

// ---- levels

TEST(CalibQuant, ErrorsOfOneBitOverASegment) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    EXPECT_NEAR(SquaredError("stats=segment,range=extremes", side), 6.9, 0.3);
    EXPECT_NEAR(SquaredError("stats=segment,range=shrunk,amount=0.5", side), 1.15, 0.05);
    EXPECT_NEAR(SquaredError("stats=segment,range=shrunk,amount=0.3", side), 0.41, 0.03);
    EXPECT_NEAR(SquaredError("stats=segment,range=quantile,amount=0.05", side), 1.08, 0.03);
    EXPECT_NEAR(SquaredError("stats=segment,range=quantile,amount=0.16", side), 0.40, 0.01);
    EXPECT_NEAR(SquaredError("stats=segment,range=quantile,amount=0.25", side), 0.38, 0.01);
    EXPECT_NEAR(SquaredError("stats=segment,range=spread,amount=1", side), 0.363, 0.003);  // 1 - 2 / pi
    EXPECT_NEAR(SquaredError("range=spread,amount=1", side), 0.352, 0.003);                // of a page
  }
}

TEST(CalibQuant, AnOffsetHurtsShrunkExtremesOnly) {
  EXPECT_NEAR(SquaredError("stats=segment,range=shrunk,amount=0.5", Side::kKey, 2.0f), 0.95, 0.05);
  EXPECT_NEAR(SquaredError("stats=segment,range=shrunk,amount=0.3", Side::kKey, 2.0f), 0.99, 0.05);
  EXPECT_NEAR(SquaredError("stats=segment,range=quantile,amount=0.25", Side::kKey, 2.0f), 0.38, 0.01);
  EXPECT_NEAR(SquaredError("stats=segment,range=spread,amount=1", Side::kKey, 2.0f), 0.363, 0.003);
}

TEST(CalibQuant, PublishedFactorsAreTheDefaultsOfShrunk) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    const double published = side == Side::kKey ? 0.5 : 0.3;
    EXPECT_DOUBLE_EQ(SquaredError("range=shrunk", side),
                     SquaredError(StrFormat("range=shrunk,amount=%g", published), side));
    EXPECT_DOUBLE_EQ(SquaredError("bits=2,range=shrunk", side), SquaredError("bits=2", side));
  }
}

// ---- the fold

TEST(CalibQuant, FoldedScoresAreDequantisedOnes) {
  for (const char* options :
       {"stats=segment", "stats=segment,bits=2", "stats=segment,bits=4", "stats=segment,bits=8"}) {
    const Codec codec = *Make(options, Side::kKey, 128, Implementation::kReference);
    const AlignedBuffer<float> rows = NormalRows(64, 128, 1, 0.5f), queries = NormalRows(3, 128, 2);
    const AlignedBuffer<std::byte> basis = Fit(codec, rows);
    const BlockContext context = {.basis = basis.data()};
    AlignedBuffer<std::byte> block(codec.block_bytes()), prepared(3 * codec.state->prepared_head_bytes);
    AlignedBuffer<float> decoded(64 * 128), scores(3 * 64);
    ASSERT_TRUE(codec.verbs.encode(*codec.state, context, rows.data(), block.data()).ok());
    ASSERT_TRUE(codec.verbs.decode(*codec.state, context, block.data(), decoded.data()).ok());
    codec.verbs.prepare_query(*codec.state, context, queries.data(), 3, prepared.data());
    codec.verbs.score(*codec.state, context, block.data(), prepared.data(), 3, scores.data());
    double error = 0, norm = 0;
    for (size_t i = 0; i < scores.size(); ++i) {
      double want = 0;
      for (size_t c = 0; c < 128; ++c) {
        want += static_cast<double>(queries[i / 64 * 128 + c]) * static_cast<double>(decoded[i % 64 * 128 + c]);
      }
      error += std::pow(static_cast<double>(scores[i]) - want, 2);
      norm += want * want;
    }
    EXPECT_LE(std::sqrt(error / norm), 1e-5) << options;
  }
}

TEST(CalibQuant, LogitMapIsTheStates) {
  const Codec codec = *Make("gain=0.9,shift=-3", Side::kKey, 128);
  EXPECT_FLOAT_EQ(codec.state->logit_map.gain, 0.9f);
  EXPECT_FLOAT_EQ(codec.state->logit_map.shift, -3.0f);
  EXPECT_TRUE(Make("", Side::kKey, 128)->state->logit_map.is_identity());
}

// ---- segments

TEST(CalibQuant, SegmentsBeginAtTheFirstPage) {
  const Codec codec = *Make("stats=segment,refit=1000", Side::kKey, 128);
  EXPECT_TRUE(NeedsBasis(*codec.state));
  EXPECT_EQ(codec.state->basis_refit_tokens, 1000);
  EXPECT_EQ(Make("", Side::kKey, 128)->state->basis_bytes, 0u);
}

TEST(CalibQuant, BadBasesAreRefused) {
  const Codec codec = *Make("stats=segment", Side::kValue, 64);
  AlignedBuffer<std::byte> basis = Fit(codec, NormalRows(64, 64, 1));
  auto* words = reinterpret_cast<uint16_t*>(basis.data());
  for (const auto& [place, word] : {std::pair<size_t, uint16_t>{63, 0x8001}, {0, 0x7C00}, {64, 0xFC00}}) {
    const uint16_t good = std::exchange(words[place], word);
    EXPECT_EQ(CheckBasis(*codec.state, basis.data()).code(), StatusCode::kCorruption) << place;
    words[place] = good;
  }
  AlignedBuffer<float> wide(64 * 64);
  wide[70] = 1e30f;
  EXPECT_EQ(FitBasis(*codec.state, {.rows = wide.data(), .tokens = 64}, basis.data()).code(),
            StatusCode::kInvalidArgument);
}

TEST(CalibQuant, RefusesWhatItCannotDo) {
  const auto message = [](std::string_view options, Side side = Side::kKey) {
    return Make(options, side, 128).status().message();
  };
  EXPECT_EQ(message("bits=3"), "codec calibquant: bits=3 is not accepted; accepted: 1, 2, 4, 8");
  EXPECT_THAT(message("range=minmax"), HasSubstr("accepted: auto, spread, quantile, shrunk, extremes"));
  EXPECT_THAT(message("range=quantile,amount=0.5"), HasSubstr("quantile 0.05..0.45"));
  EXPECT_THAT(message("range=shrunk,amount=2"), HasSubstr("amount=2 is not accepted"));
  EXPECT_THAT(message("range=extremes,amount=0.5"), HasSubstr("amount=0.5 is not accepted"));
  EXPECT_THAT(message("stats=block"), HasSubstr("accepted: page, segment"));
  EXPECT_THAT(message("refit=-1"), HasSubstr("accepted: 0..1048576"));
  EXPECT_THAT(message("gain=0"), HasSubstr("accepted: 0.1..4"));
  EXPECT_THAT(message("shift=20"), HasSubstr("accepted: -16..16"));
  EXPECT_THAT(message("shift=-3", Side::kValue), HasSubstr("shift=-3 is not accepted for values"));
  EXPECT_THAT(message("gain=0.9", Side::kValue), HasSubstr("gain=0.9 is not accepted for values"));
}

}  // namespace
}  // namespace kvant::calibquant
