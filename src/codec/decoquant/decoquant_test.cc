#include "codec/decoquant/decoquant.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"

namespace kvant::decoquant {
namespace {

Result<Codec> MakeFor(const std::string& text, Side side, int dim = 128) {
  const auto options = ParseCodecOptions(kInfo, text);
  EXPECT_TRUE(options.ok());
  return MakeCodec("decoquant", *options, {.side = side, .dim = dim});
}

// Rows whose channels fall in size by e^-`decay` from first to last, then turned by fixed plane rotations.
AlignedBuffer<float> Rows(int count, int dim, float decay, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> rows(static_cast<size_t>(count * dim));
  for (int t = 0; t < count; ++t) {
    float* row = rows.data() + t * dim;
    for (int c = 0; c < dim; ++c)
      row[c] = normal(rng) * std::exp(-decay * static_cast<float>(c) / static_cast<float>(dim));
    for (int c = 0; c < dim; ++c) {
      float& a = row[c];
      float& b = row[(c + dim / 3) % dim];
      const float turned = 0.8f * a + 0.6f * b;
      b = 0.8f * b - 0.6f * a;
      a = turned;
    }
  }
  return rows;
}

struct Fitted {
  Codec codec;
  AlignedBuffer<std::byte> bytes;
  BlockContext context() const { return {.basis = bytes.size() > 0 ? bytes.data() : nullptr}; }
  const State& state() const { return AsState(*codec.state); }
};

Fitted Fit(const std::string& text, Side side, const AlignedBuffer<float>& rows, int dim = 128) {
  Fitted f{*MakeFor(text, side, dim), {}};
  f.bytes = AlignedBuffer<std::byte>(f.codec.state->basis_bytes);
  if (f.bytes.size() > 0) {
    EXPECT_TRUE(FitBasis(*f.codec.state, {.rows = rows.data(), .tokens = rows.size() / static_cast<size_t>(dim)},
                         f.bytes.data())
                    .ok());
    EXPECT_TRUE(CheckBasis(*f.codec.state, f.bytes.data()).ok());
  }
  return f;
}

// ---- bytes

// Published codes at 2 bits with no basis: every row is {1, -1, 0, ...}, so the scale is 1 and the codes are
// 3, 1, 2.
TEST(DecoquantTest, HandComputedBlock) {
  const auto codec = MakeFor("gauge=sqrt,bits=2", Side::kValue, 16);
  ASSERT_TRUE(codec.ok());
  AlignedBuffer<float> rows(64 * 16);
  for (size_t t = 0; t < 64; ++t) {
    rows[t * 16] = 1.0f;
    rows[t * 16 + 1] = -1.0f;
  }
  AlignedBuffer<std::byte> block(codec->block_bytes());
  ASSERT_EQ(block.size(), 128u + 256u);
  ASSERT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
  for (size_t t = 0; t < 64; ++t) EXPECT_EQ(reinterpret_cast<const uint16_t*>(block.data())[t], 0x3C00) << t;
  // Byte k holds codes k, k + 256, ...: four tokens of channel (k / 4) % 16, four times.
  for (size_t k = 0; k < 256; ++k) {
    const size_t channel = k / 4 % 16;
    EXPECT_EQ(block[128 + k], channel == 0 ? std::byte{0xFF} : channel == 1 ? std::byte{0x55} : std::byte{0xAA}) << k;
  }
}

TEST(DecoquantTest, BytesOfBlockAndBasis) {
  const auto key = MakeFor("", Side::kKey);
  ASSERT_EQ(key->state->layout.streams().size(), 3u);
  EXPECT_EQ(key->block_bytes(), 256u + 128u + 64u * 128u / 2);
  EXPECT_EQ(MakeFor("bits=2.25", Side::kValue)->block_bytes(), 128u + 18u * 128u);
  EXPECT_EQ(key->state->basis_bytes, 0u);
  EXPECT_EQ(MakeFor("gauge=klt", Side::kKey)->state->basis_bytes, AlignUp(16 + 256 + 254 + 127 * 64));
  const auto published = MakeFor("gauge=sqrt", Side::kKey);
  EXPECT_EQ(published->state->basis_bytes, AlignUp(16 + 32 + 30 + 15 * 8));
  EXPECT_TRUE(published->state->basis_per_layer);
  EXPECT_EQ(published->state->basis_min_tokens, 1024);
  EXPECT_EQ(published->state->basis_refit_tokens, 8192);
}

TEST(DecoquantTest, FractionsOfABitGoToTheFirstTiles) {
  const auto codec = MakeFor("bits=2.5", Side::kValue);
  const State& s = AsState(*codec->state);
  EXPECT_EQ(std::vector<uint8_t>(s.default_bits, s.default_bits + 8), (std::vector<uint8_t>{3, 3, 3, 3, 2, 2, 2, 2}));
  EXPECT_EQ(AsState(*MakeFor("bits=2.5", Side::kValue, 80)->state).total_bits, 12);  // 12.5 rounded down
  EXPECT_EQ(AsState(*MakeFor("bits=7.875", Side::kValue)->state).total_bits, 62);    // no width of 7
}

TEST(DecoquantTest, RefusesWhatItCannotDo) {
  const auto message = [](const std::string& text) {
    const auto codec = MakeFor(text, Side::kKey);
    return codec.ok() ? std::string("accepted") : codec.status().message();
  };
  EXPECT_EQ(message("bits=9"), "codec decoquant: bits=9 is not accepted; accepted: 0.5..8 in steps of 0.125");
  EXPECT_EQ(message("bits=4.1"), "codec decoquant: bits=4.1 is not accepted; accepted: 0.5..8 in steps of 0.125");
  EXPECT_EQ(message("gauge=svd"), "codec decoquant: gauge=svd is not accepted; accepted: hadamard, sqrt, bal, klt");
  EXPECT_EQ(message("gauge=sqrt,bits=2.5"),
            "codec decoquant: bits=2.5 is not accepted with absmax codes, which take 2, 3, 4, 6 or 8; "
            "accepted: 0.5..8 in "
            "steps of 0.125");
  EXPECT_EQ(message("gauge=klt,code=absmax"),
            "codec decoquant: code=absmax is not accepted with gauge=klt; accepted: auto, lm, uniform, "
            "absmax, trellis");
  EXPECT_EQ(message("fit=10"), "codec decoquant: fit=10 is not accepted; accepted: 64..1048576");
  EXPECT_EQ(message("mean=off,gauge=bal,bits=0.5"), "accepted");
}

TEST(DecoquantTest, ScalesBeyondFp16AreRefused) {
  const auto codec = MakeFor("mean=off", Side::kKey);
  AlignedBuffer<float> rows(64 * 128);
  std::fill_n(rows.data() + 5 * 128, 128, 3e4f);
  AlignedBuffer<std::byte> block(codec->block_bytes());
  EXPECT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
  rows[5 * 128] = 3e6f;
  const Status status = codec->verbs.encode(*codec->state, {}, rows.data(), block.data());
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("of token 5 does not fit fp16"), std::string::npos) << status.message();
}

// ---- reading in the latent space

constexpr const char* kGauges[] = {"gauge=hadamard",
                                   "gauge=sqrt",
                                   "gauge=bal",
                                   "gauge=klt,bits=2.5",
                                   "code=trellis,bits=2.5",
                                   "gauge=klt,code=trellis,bits=4"};

double RelativeDistance(const std::vector<double>& want, const float* got) {
  double error = 0.0;
  double norm = 0.0;
  for (size_t i = 0; i < want.size(); ++i) {
    error += (want[i] - got[i]) * (want[i] - got[i]);
    norm += want[i] * want[i];
  }
  return std::sqrt(error / norm);
}

TEST(DecoquantTest, ScoresOverLatentsAreQueryTimesDecode) {
  constexpr int kHeads = 3;
  const AlignedBuffer<float> rows = Rows(1024, 128, 3.0f, 1);
  const AlignedBuffer<float> queries = Rows(kHeads, 128, 0.0f, 2);
  for (const char* gauge : kGauges) {
    const Fitted f = Fit(gauge, Side::kKey, rows);
    AlignedBuffer<std::byte> block(f.codec.block_bytes());
    AlignedBuffer<float> decoded(64 * 128);
    ASSERT_TRUE(f.codec.verbs.encode(f.state(), f.context(), rows.data(), block.data()).ok());
    ASSERT_TRUE(f.codec.verbs.decode(f.state(), f.context(), block.data(), decoded.data()).ok());
    std::vector<double> want(kHeads * 64, 0.0);
    for (size_t i = 0; i < want.size(); ++i) {
      for (size_t c = 0; c < 128; ++c)
        want[i] += static_cast<double>(queries[i / 64 * 128 + c]) * decoded[i % 64 * 128 + c];
    }
    for (const CodecVerbs* verbs : {&kInfo.reference, SimdVerbs()}) {
      AlignedBuffer<std::byte> prepared(kHeads * f.state().prepared_head_bytes);
      AlignedBuffer<float> scores(kHeads * 64);
      verbs->prepare_query(f.state(), f.context(), queries.data(), kHeads, prepared.data());
      verbs->score(f.state(), f.context(), block.data(), prepared.data(), kHeads, scores.data());
      EXPECT_LT(RelativeDistance(want, scores.data()), verbs == SimdVerbs() ? 1e-2 : 1e-5) << gauge;
    }
  }
}

TEST(DecoquantTest, OutputsFromLatentsAreWeightsTimesDecode) {
  constexpr int kHeads = 3;
  const AlignedBuffer<float> rows = Rows(1024, 128, 3.0f, 3);
  AlignedBuffer<float> weights = Rows(kHeads, 64, 0.0f, 4);
  for (float& w : weights.span()) w = w * w;
  for (const std::string mean : {",mean=off", ",mean=on"}) {
    for (const char* gauge : kGauges) {
      const Fitted f = Fit(gauge + mean, Side::kValue, rows);
      AlignedBuffer<std::byte> block(f.codec.block_bytes());
      AlignedBuffer<float> decoded(64 * 128);
      ASSERT_TRUE(f.codec.verbs.encode(f.state(), f.context(), rows.data(), block.data()).ok());
      ASSERT_TRUE(f.codec.verbs.decode(f.state(), f.context(), block.data(), decoded.data()).ok());
      std::vector<double> want(kHeads * 128, 0.0);
      for (size_t i = 0; i < want.size(); ++i) {
        for (size_t t = 0; t < 64; ++t)
          want[i] += static_cast<double>(weights[i / 128 * 64 + t]) * decoded[t * 128 + i % 128];
      }
      for (const CodecVerbs* verbs : {&kInfo.reference, SimdVerbs()}) {
        AlignedBuffer<float> acc(kHeads * static_cast<size_t>(f.state().acc_dim));
        AlignedBuffer<float> out(kHeads * 128);
        verbs->accumulate(f.state(), f.context(), block.data(), weights.data(), kHeads, acc.data());
        verbs->finish(f.state(), f.context(), acc.data(), kHeads, out.data());
        EXPECT_LT(RelativeDistance(want, out.data()), verbs == SimdVerbs() ? 1e-3 : 1e-5) << gauge << mean;
      }
    }
  }
}

// Slope of <row, decoded> over <row, row> at 2 bits: 1, so that scores do not shrink; 1 - D with the least
// error.
TEST(DecoquantTest, ScalesAreUnbiased) {
  const AlignedBuffer<float> rows = Rows(64, 128, 0.0f, 5);
  for (const char* scale : {"unbiased", "ls"}) {
    const auto codec = MakeFor(std::string("bits=2,mean=off,scale=") + scale, Side::kKey);
    AlignedBuffer<std::byte> block(codec->block_bytes());
    AlignedBuffer<float> decoded(rows.size());
    ASSERT_TRUE(codec->verbs.encode(*codec->state, {}, rows.data(), block.data()).ok());
    ASSERT_TRUE(codec->verbs.decode(*codec->state, {}, block.data(), decoded.data()).ok());
    const double dot = std::inner_product(rows.data(), rows.data() + rows.size(), decoded.data(), 0.0);
    const double norm = std::inner_product(rows.data(), rows.data() + rows.size(), rows.data(), 0.0);
    EXPECT_NEAR(dot / norm, scale == std::string("ls") ? 1.0 - 0.1175 : 1.0, 0.01) << scale;
  }
}

// ---- bases

TEST(DecoquantTest, WidthsFollowTheVariances) {
  const AlignedBuffer<float> rows = Rows(2048, 128, 5.0f, 6);
  const Fitted f = Fit("gauge=klt,bits=2.5", Side::kValue, rows);
  const SegmentMap map = MapOf(f.state(), f.context().basis);
  EXPECT_EQ(std::accumulate(map.bits, map.bits + 8, 0), 20);
  EXPECT_TRUE(std::is_sorted(map.bits, map.bits + 8, std::greater<>()));
  EXPECT_GE(map.bits[0], 4);
  EXPECT_LE(map.bits[7], 1);
  EXPECT_EQ(ToFloat(map.maybe_gains[0]), 1.0f);
  EXPECT_LT(ToFloat(map.maybe_gains[127]), 0.2f);
}

TEST(DecoquantTest, DegenerateRowsStillGiveABasis) {
  AlignedBuffer<float> rows(1024 * 128);
  for (const char* gauge : {"gauge=sqrt", "gauge=bal", "gauge=klt"}) {
    Fit(gauge, Side::kKey, rows);
    for (size_t t = 0; t < 1024; ++t) rows[t * 128 + 3] = static_cast<float>(t % 7);
    const Fitted f = Fit(gauge, Side::kKey, rows);
    AlignedBuffer<std::byte> block(f.codec.block_bytes());
    EXPECT_TRUE(f.codec.verbs.encode(f.state(), f.context(), rows.data(), block.data()).ok()) << gauge;
  }
}

TEST(DecoquantTest, ForeignBasesAreChecked) {
  const AlignedBuffer<float> rows = Rows(1024, 128, 3.0f, 7);
  const Fitted f = Fit("gauge=klt", Side::kKey, rows);
  const BasisLayout layout = LayoutOfBasis(f.state());
  const auto corrupted = [&](size_t ofs, uint16_t value, size_t size) {
    AlignedBuffer<std::byte> bytes(f.bytes.size());
    std::memcpy(bytes.data(), f.bytes.data(), bytes.size());
    std::memcpy(bytes.data() + ofs, &value, size);
    return CheckBasis(f.state(), bytes.data()).code();
  };
  EXPECT_EQ(corrupted(0, static_cast<uint16_t>(f.bytes[0]), 1), StatusCode::kOk);
  EXPECT_EQ(corrupted(0, 5, 1), StatusCode::kCorruption);                                   // no such width
  EXPECT_EQ(corrupted(0, f.bytes[0] == std::byte{8} ? 6 : 8, 1), StatusCode::kCorruption);  // another sum
  EXPECT_EQ(corrupted(layout.gains_ofs + 2, 0x0000, 2), StatusCode::kCorruption);           // gain 0
  EXPECT_EQ(corrupted(layout.gains_ofs + 2, 0x7C00, 2), StatusCode::kCorruption);           // infinite
  EXPECT_EQ(corrupted(layout.reflectors_ofs, 0x7E00, 2), StatusCode::kCorruption);          // NaN
}

}  // namespace
}  // namespace kvant::decoquant
