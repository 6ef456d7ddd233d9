#include "codec/vidkv/vidkv.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <complex>
#include <numbers>
#include <set>

#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "codec/registry.h"
#include "codec/test_rows.h"
#include "codec/vidkv/vidkv_kernels.h"

namespace kvant::vidkv {
namespace {

using testing::HasSubstr;

Result<Codec> Make(std::string_view options, Side side, int dim) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("vidkv", *parsed, {.side = side, .dim = dim});
}

AlignedBuffer<std::byte> Encode(const Codec& codec, const AlignedBuffer<float>& rows,
                                const BlockContext& context = {}) {
  AlignedBuffer<std::byte> block(codec.block_bytes());
  EXPECT_TRUE(codec.verbs.encode(*codec.state, context, rows.data(), block.data()).ok());
  return block;
}

AlignedBuffer<float> Decode(const Codec& codec, const AlignedBuffer<std::byte>& block) {
  AlignedBuffer<float> rows(static_cast<size_t>(64 * codec.shape().dim));
  EXPECT_TRUE(codec.verbs.decode(*codec.state, {}, block.data(), rows.data()).ok());
  return rows;
}

double Square(float x) { return static_cast<double>(x) * static_cast<double>(x); }

/// Mean squared error on unit normal rows, over 40 blocks.
double SquaredError(std::string_view options, Side side) {
  const Codec codec = *Make(options, side, 128);
  double sum = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const AlignedBuffer<float> rows = NormalRows(64, 128, seed);
    const AlignedBuffer<float> decoded = Decode(codec, Encode(codec, rows));
    for (size_t i = 0; i < rows.size(); ++i) sum += Square(rows[i] - decoded[i]);
  }
  return sum / (40 * 64 * 128);
}

size_t StreamBytes(const Codec& codec, std::string_view name) {
  for (const Stream& stream : codec.state->layout.streams()) {
    if (stream.name == name) return stream.bytes;
  }
  return 0;
}

// ---- keys

TEST(VidKvKeys, HandComputedBlock) {
  const Result<Codec> codec = Make("levels=sign,stretch=1,transform=none", Side::kKey, 32);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 512u);  // mask, padding to 16, 256 + 32 + 32, 128 + 32, padding to 64
  // Odd channels run over -3, -1, 1, 3 with the token, even ones over -0.5, 0.5.
  AlignedBuffer<float> rows(64 * 32);
  for (size_t t = 0; t < 64; ++t) {
    for (size_t c = 0; c < 32; ++c) {
      rows[t * 32 + c] = c % 2 == 1 ? 2.0f * static_cast<float>(t % 4) - 3.0f : static_cast<float>(t % 2) - 0.5f;
    }
  }
  const AlignedBuffer<std::byte> block = Encode(*codec, rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(bytes[i], 0xAA) << i;  // the odd channels are wide
  // Byte 4 t + i holds four channels of token t, all alike: code t mod 4 four times.
  constexpr uint8_t kFourTimes[] = {0x00, 0x55, 0xAA, 0xFF};
  for (size_t k = 0; k < 256; ++k) ASSERT_EQ(bytes[16 + k], kFourTimes[k / 4 % 4]) << k;
  const auto* wide = reinterpret_cast<const uint16_t*>(bytes + 16 + 256);
  for (size_t i = 0; i < 16; ++i) {
    EXPECT_EQ(wide[i], 0x4000) << i;       // scale 2
    EXPECT_EQ(wide[16 + i], 0xC200) << i;  // min -3
  }
  const uint8_t* rest = bytes + 16 + 256 + 64;
  for (size_t k = 0; k < 128; ++k) ASSERT_EQ(rest[k], k / 4 % 2 == 1 ? 0xFF : 0x00) << k;
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(reinterpret_cast<const uint16_t*>(rest + 128)[i], 0x3C00) << i;  // 2 * 0.5
  EXPECT_THAT(Decode(*codec, block).span(), testing::ElementsAreArray(rows.span()));
}

TEST(VidKvKeys, ChannelsOfWidestRangeHaveTwoBits) {
  const Codec codec = *Make("wide=0.25", Side::kKey, 128);
  AlignedBuffer<float> rows = NormalRows(64, 128, 1);
  std::set<int> wide;
  while (wide.size() < 32) wide.insert(static_cast<int>(wide.size() * 37 + 5) % 128);
  for (size_t t = 0; t < 64; ++t) {
    for (const int c : wide) rows[t * 128 + static_cast<size_t>(c)] *= 20.0f;
  }
  const AlignedBuffer<std::byte> block = Encode(codec, rows);
  const ChannelMask mask = LoadMask(AsKeys(*codec.state), block.data());
  for (int c = 0; c < 128; ++c) EXPECT_EQ(mask[c], wide.contains(c)) << c;
}

// The 1-bit codes of n real channels take n bits, where the complex transform of the released code takes 2 n; what is
// lost is the same.
TEST(VidKvKeys, RealTransformTakesHalfTheBitsOfTheComplexOne) {
  constexpr int kChannels = 64, kTokens = 32, kBlocks = 20;
  const Codec codec = *Make("levels=sign,group=32,stretch=1", Side::kKey, 2 * kChannels);
  EXPECT_EQ(StreamBytes(codec, "codes") * 8, 64u * kChannels);

  double complex_error = 0, real_error = 0;
  for (unsigned seed = 0; seed < kBlocks; ++seed) {
    const AlignedBuffer<float> rows = NormalRows(64, kChannels, seed);
    std::vector<std::complex<double>> columns(kTokens * kChannels);  // [token][frequency]
    const auto phase = [](int i, int sign) {
      return std::polar(1.0 / std::sqrt(double{kChannels}), sign * 2 * std::numbers::pi * (i % kChannels) / kChannels);
    };
    for (int t = 0; t < kTokens; ++t) {
      for (int f = 0; f < kChannels; ++f) {
        for (int c = 0; c < kChannels; ++c) {
          columns[static_cast<size_t>(t * kChannels + f)] +=
              phase(f * c, -1) * static_cast<double>(rows[static_cast<size_t>(t * kChannels + c)]);
        }
      }
    }
    for (int f = 0; f < kChannels; ++f) {  // +-mean magnitude, real and imaginary part on their own
      double real = 0, imaginary = 0;
      for (int t = 0; t < kTokens; ++t) {
        real += std::abs(columns[static_cast<size_t>(t * kChannels + f)].real()) / kTokens;
        imaginary += std::abs(columns[static_cast<size_t>(t * kChannels + f)].imag()) / kTokens;
      }
      for (int t = 0; t < kTokens; ++t) {
        std::complex<double>& x = columns[static_cast<size_t>(t * kChannels + f)];
        x = {std::copysign(real, x.real()), std::copysign(imaginary, x.imag())};
      }
    }
    for (int t = 0; t < kTokens; ++t) {
      for (int c = 0; c < kChannels; ++c) {
        std::complex<double> back = 0;
        for (int f = 0; f < kChannels; ++f) back += phase(f * c, 1) * columns[static_cast<size_t>(t * kChannels + f)];
        complex_error += std::norm(back - static_cast<double>(rows[static_cast<size_t>(t * kChannels + c)]));
      }
    }
    // Ours: the same rows beside channels so wide that they take the two bits.
    AlignedBuffer<float> beside(64 * 2 * kChannels);
    for (size_t t = 0; t < 64; ++t) {
      for (size_t c = 0; c < kChannels; ++c) {
        beside[t * 2 * kChannels + 2 * c] = rows[t * kChannels + c];
        beside[t * 2 * kChannels + 2 * c + 1] = t % 2 == 0 ? 100.0f : -100.0f;
      }
    }
    const AlignedBuffer<float> decoded = Decode(codec, Encode(codec, beside));
    for (size_t t = 0; t < kTokens; ++t) {
      for (size_t c = 0; c < kChannels; ++c) {
        real_error += Square(decoded[t * 2 * kChannels + 2 * c] - rows[t * kChannels + c]);
      }
    }
  }
  constexpr double kValues = kBlocks * kTokens * kChannels;
  EXPECT_NEAR(real_error / kValues, 0.352, 0.01);  // 1 - 2 / pi for long groups
  EXPECT_NEAR(complex_error / kValues, real_error / kValues, 0.01);
}

TEST(VidKvKeys, WrongMasksAreCorruption) {
  const Codec codec = *Make("", Side::kKey, 128);
  AlignedBuffer<float> rows = NormalRows(64, 128, 1);
  AlignedBuffer<std::byte> block = Encode(codec, rows);
  block[0] ^= std::byte{1};
  const Status status = codec.verbs.decode(*codec.state, {}, block.data(), rows.data());
  EXPECT_EQ(status.code(), StatusCode::kCorruption);
  EXPECT_THAT(status.message(), HasSubstr("channels are marked as wide, not 64"));
}

// ---- values

TEST(VidKvValues, HandComputedBlock) {
  const Result<Codec> codec = Make("salient=0,stretch=1", Side::kValue, 16);
  ASSERT_TRUE(codec.ok()) << codec.status().message();
  ASSERT_EQ(codec->block_bytes(), 4 * 64 + 64u);
  // Tokens run over 0, 2, -2, 2: mean 1.5, threshold 1.05, scale 2.
  AlignedBuffer<float> rows(64 * 16);
  constexpr float kValues[] = {0.0f, 2.0f, -2.0f, 2.0f};
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = kValues[i / 16 % 4];
  const AlignedBuffer<std::byte> block = Encode(*codec, rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Byte 64 k + 4 c + i holds token 4 q + i of the quads q = k, 4 + k, 8 + k, 12 + k, and none in the last place: four
  // times the trit 1, 2, 0, 2, then 0. ceil(v * 256 / 243) with v = 120, 240, 0, 240.
  constexpr uint8_t kBytes[] = {127, 253, 0, 253};
  for (size_t k = 0; k < 256; ++k) ASSERT_EQ(bytes[k], kBytes[k % 4]) << k;
  for (size_t c = 0; c < 16; ++c) EXPECT_EQ(reinterpret_cast<const uint16_t*>(bytes + 256)[c], 0x4000) << c;
  EXPECT_THAT(Decode(*codec, block).span(), testing::ElementsAreArray(rows.span()));
}

TEST(VidKvValues, EveryByteOfTritsOnEveryTarget) {
  const Codec codec = *Make("salient=0", Side::kValue, 80);
  const ValueState& state = AsValues(*codec.state);
  ASSERT_EQ(state.trits.num_quads, 5 * state.trits.rows());  // no empty place
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    AlignedBuffer<std::byte> tiles(64 * 80), levels(64 * 80), block(codec.block_bytes());
    const auto value_at = [](int byte) { return byte % 243; };
    for (int quad = 0; quad < state.trits.num_quads; ++quad) {
      constexpr int kPlaces[] = {81, 27, 9, 3, 1};
      for (int i = 0; i < 64; ++i) {
        const int byte = quad % state.trits.rows() * 64 + i;
        tiles[state.trits.tile_byte_ofs[quad] + static_cast<size_t>(i)] =
            static_cast<std::byte>(value_at(byte) / kPlaces[quad / state.trits.rows()] % 3);
      }
    }
    GetKernels().pack(state, tiles.data(), block.data());
    for (int byte = 0; byte < 64 * state.trits.rows(); ++byte) {
      ASSERT_EQ(static_cast<int>(block[static_cast<size_t>(byte)]), (value_at(byte) * 256 + 242) / 243) << target;
    }
    GetKernels().unpack(state, block.data(), levels.data());
    for (size_t i = 0; i < tiles.size(); ++i) {
      ASSERT_EQ(static_cast<int>(levels[i]), kTritLevels[static_cast<size_t>(tiles[i])]) << target << ' ' << i;
    }
  }
  SetSimdTarget("");
}

TEST(VidKvValues, TernaryError) {
  // The scale of the kept values; that of all values would give 0.26, threshold 0.5 gives 0.20.
  EXPECT_NEAR(SquaredError("salient=0,group=32,stretch=1", Side::kValue), 0.182, 0.003);
  EXPECT_NEAR(SquaredError("salient=0,stretch=1", Side::kValue), 0.186, 0.003);
  EXPECT_NEAR(SquaredError("salient=0,group=32,gamma=0.5,stretch=1", Side::kValue), 0.200, 0.004);
}

/// Squared error of each token, mean over channels and blocks, when `salient` are of that class.
std::vector<double> ErrorOfTokens(const Codec& codec, const std::vector<TokenClass>& classes) {
  std::vector<double> errors(64);
  for (unsigned seed = 0; seed < 20; ++seed) {
    const AlignedBuffer<float> rows = NormalRows(64, 128, seed);
    const auto decoded = Decode(codec, Encode(codec, rows, {.maybe_token_classes = classes.data()}));
    for (size_t i = 0; i < rows.size(); ++i) errors[i / 128] += Square(rows[i] - decoded[i]) / (20 * 128);
  }
  return errors;
}

TEST(VidKvValues, SalientTokensLoseLess) {
  const Codec codec = *Make("salient=8,stretch=1", Side::kValue, 128);
  std::vector<TokenClass> classes(64);
  for (size_t t = 3; t < 64; t += 8) classes[t] = TokenClass::kSalient;
  const std::vector<double> errors = ErrorOfTokens(codec, classes);
  for (size_t t = 0; t < 64; ++t) {
    EXPECT_NEAR(errors[t], classes[t] == TokenClass::kSalient ? 0.124 : 0.186, 0.02) << t;
  }
}

uint64_t SalientTokens(const Codec& codec, const AlignedBuffer<float>& rows, const std::vector<TokenClass>& classes) {
  const auto block = Encode(codec, rows, {.maybe_token_classes = classes.empty() ? nullptr : classes.data()});
  return LoadSalient(AsValues(*codec.state), block.data());
}

TEST(VidKvValues, LargeTokensTakeThePlacesThatClassesLeave) {
  const Codec codec = *Make("salient=4", Side::kValue, 64);
  AlignedBuffer<float> rows = NormalRows(64, 64, 1);
  for (const size_t t : {7, 20, 33, 50}) {
    for (size_t c = 0; c < 64; ++c) rows[t * 64 + c] *= static_cast<float>(t);
  }
  const auto bits = [](std::initializer_list<int> tokens) {
    uint64_t mask = 0;
    for (const int t : tokens) mask |= uint64_t{1} << t;
    return mask;
  };
  std::vector<TokenClass> classes(64);
  EXPECT_EQ(SalientTokens(codec, rows, {}), bits({7, 20, 33, 50}));
  EXPECT_EQ(SalientTokens(codec, rows, classes), bits({7, 20, 33, 50}));
  classes[0] = classes[63] = TokenClass::kSalient;
  EXPECT_EQ(SalientTokens(codec, rows, classes), bits({0, 63, 33, 50}));
  for (TokenClass& c : classes) c = TokenClass::kSalient;  // more than there are places: the largest of them
  EXPECT_EQ(SalientTokens(codec, rows, classes), bits({7, 20, 33, 50}));
}

TEST(VidKvValues, BadBlocksAreCorruption) {
  const Codec codec = *Make("", Side::kValue, 128);
  const ValueState& state = AsValues(*codec.state);
  AlignedBuffer<float> rows = NormalRows(64, 128, 1);
  for (const size_t word_ofs : {state.scales_byte_ofs, state.gains_byte_ofs}) {
    AlignedBuffer<std::byte> block = Encode(codec, rows);
    *reinterpret_cast<uint16_t*>(block.data() + word_ofs) = 0x8001;
    EXPECT_EQ(codec.verbs.decode(*codec.state, {}, block.data(), rows.data()).code(), StatusCode::kCorruption);
  }
  AlignedBuffer<std::byte> block = Encode(codec, rows);
  block[state.mask_byte_ofs] ^= std::byte{1};
  EXPECT_THAT(codec.verbs.decode(*codec.state, {}, block.data(), rows.data()).message(),
              HasSubstr("tokens are marked as salient, not 12"));
}

// ---- both

// As published, 128 channels: 2.25 and 2.10 bits; here beside them the mask of a block, the rounding of trits to rows
// of bytes and of blocks to cache lines.
TEST(VidKv, BitsOfThePublishedSetting) {
  const Codec keys = *Make("levels=sign,group=32", Side::kKey, 128);
  const size_t key_bytes = StreamBytes(keys, "wide_codes") + StreamBytes(keys, "wide_scales") +
                           StreamBytes(keys, "wide_mins") + StreamBytes(keys, "codes") + StreamBytes(keys, "scales");
  EXPECT_DOUBLE_EQ(static_cast<double>(key_bytes) * 8 / (64 * 128), 2.25);
  EXPECT_EQ(StreamBytes(keys, "wide_channels"), 16u);
  EXPECT_EQ(keys.block_bytes(), key_bytes + 64);

  const Codec values = *Make("salient=0,group=32", Side::kValue, 128);
  EXPECT_EQ(StreamBytes(values, "trits"), 1664u);  // 8,192 / 5 = 1,638.4
  EXPECT_DOUBLE_EQ(static_cast<double>(values.block_bytes()) * 8 / (64 * 128), 2.125);
}

TEST(VidKv, PrescribesTheResidualWindowOfThePaper) { EXPECT_EQ(kInfo.recent_tokens, 128); }

TEST(VidKv, RefusesWhatItCannotDo) {
  const auto message = [](std::string_view options, Side side, int dim = 128) {
    return Make(options, side, dim).status().message();
  };
  EXPECT_EQ(message("wide=0.2", Side::kKey),
            "codec vidkv: wide=0.2 is not accepted; accepted: 0.25..0.75 in steps of 0.125");
  EXPECT_THAT(message("levels=extremes", Side::kKey), HasSubstr("accepted: spread, sign"));
  EXPECT_THAT(message("transform=fft", Side::kKey), HasSubstr("accepted: hadamard, none"));
  EXPECT_THAT(message("salient=6", Side::kValue), HasSubstr("accepted: 0..24 in steps of 4"));
  EXPECT_THAT(message("gamma=2", Side::kValue), HasSubstr("accepted: 0.3..1.5 in steps of 0.05"));
  EXPECT_THAT(message("stretch=3", Side::kValue), HasSubstr("accepted: 0.5..2 in steps of 0.05"));
  EXPECT_THAT(message("group=128", Side::kValue), HasSubstr("accepted: 32, 64"));
  EXPECT_THAT(message("wide=0.5", Side::kValue), HasSubstr("wide=0.5 is not accepted for values"));
  EXPECT_THAT(message("salient=4", Side::kKey), HasSubstr("salient=4 is not accepted for keys"));
  EXPECT_THAT(message("", Side::kKey, 16), HasSubstr("at least 32, not 16"));
  EXPECT_EQ(Make("", Side::kKey, 16).status().code(), StatusCode::kNotSupported);
}

}  // namespace
}  // namespace kvant::vidkv
