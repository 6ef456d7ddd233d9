#include "codec/kvquant/kvquant.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/aligned_buffer.h"
#include "codec/registry.h"
#include "codec/test_rope.h"
#include "codec/test_rows.h"

namespace kvant::kvquant {
namespace {

using testing::HasSubstr;

Result<Codec> TryMake(std::string_view options, Side side, int dim,
                      Implementation implementation = Implementation::kBest) {
  const Result<CodecOptions> parsed = ParseCodecOptions(kInfo, options);
  if (!parsed.ok()) return parsed.status();
  return MakeCodec("kvquant", *parsed, {.side = side, .dim = dim}, implementation);
}

// A codec with a basis, RoPE and positions.
struct Subject {
  Codec codec;
  TestRope rope;
  AlignedBuffer<std::byte> basis;

  Subject(std::string_view options, Side side, int dim, TestPositions positions = TestPositions::kConsecutive,
          const RopeShape& shape = RopeShape::OfBase(10000, 0, false))
      : codec(*TryMake(options, side, dim)), rope(dim, positions, shape), basis(codec.state->basis_bytes) {}

  const State& state() const { return AsState(*codec.state); }
  BlockContext context() const { return rope.Context(*codec.state, basis.data()); }

  void Fit(const AlignedBuffer<float>& rows, const double* metric = nullptr) {
    const size_t tokens = rows.size() / static_cast<size_t>(state().shape.dim);
    const Status status =
        kInfo.fit_basis(*codec.state, {.rows = rows.data(), .tokens = tokens, .maybe_metric = metric}, basis.data());
    ASSERT_TRUE(status.ok()) << status.message();
    ASSERT_TRUE(kInfo.check_basis(*codec.state, basis.data()).ok());
  }
  AlignedBuffer<std::byte> Encode(const AlignedBuffer<float>& rows) const {
    AlignedBuffer<std::byte> block(codec.block_bytes());
    const Status status = codec.verbs.encode(*codec.state, context(), rows.data(), block.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return block;
  }
  AlignedBuffer<float> Decode(const AlignedBuffer<std::byte>& block) const {
    AlignedBuffer<float> rows(static_cast<size_t>(64 * state().shape.dim));
    const Status status = codec.verbs.decode(*codec.state, context(), block.data(), rows.data());
    EXPECT_TRUE(status.ok()) << status.message();
    return rows;
  }
};

// Levels -1, -1/3, 1/3, 1, as near as bytes come: 1, 86, 170, 255.
void SetPlainBasis(Subject* s, float mid, float half) {
  std::memset(s->basis.data(), 0, s->basis.size());
  const uint8_t levels[] = {1, 86, 170, 255};
  const float thresholds[] = {-2.0f / 3, 0.0f, 2.0f / 3};
  std::memcpy(s->basis.data(), levels, sizeof(levels));
  std::memcpy(s->basis.data() + 16, thresholds, sizeof(thresholds));
  const BasisView view(s->state(), s->basis.data());
  for (int c = 0; s->state().keys() && c < s->state().shape.dim; ++c) {
    const_cast<F16*>(view.mids)[c] = ToF16(mid);
    const_cast<F16*>(view.halves)[c] = ToF16(half);
  }
}

// ---- bytes

TEST(KvQuant, HandComputedKeyBlock) {
  // All at position 0, where RoPE changes nothing: pair order alone. 16 channels, codes of 2 bits.
  RopeShape still = {.frequencies = std::vector<double>(8, 0.0)};
  Subject s("bits=2,outliers=1.5", Side::kKey, 16, TestPositions::kConsecutive, still);
  ASSERT_EQ(s.state().slots, 16);
  SetPlainBasis(&s, 1.0f, 4.0f);
  AlignedBuffer<float> rows(64 * 16);
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = 5.0f;  // code 3 everywhere
  rows[3 * 16 + 9] = -3.0f;   // token 3, channel 9: second of pair 1, coded channel 3; code 0
  rows[10 * 16 + 2] = 21.0f;  // token 10, channel 2: coded channel 4; far outside
  const AlignedBuffer<std::byte> block = s.Encode(rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Code number ((3 / 4) * 64 + 3) * 4 + 3 = 15: field 0 of byte 15 loses its two bits.
  for (size_t k = 0; k < 256; ++k) ASSERT_EQ(bytes[k], k == 15 ? 0xFC : 0xFF) << k;
  // The outlier; the other 15 slots go to the |x| = 1 of lowest place: coded channels 0 and 2 at tokens 0 to 7, but
  // for channel 2 of token 7. Places are token * 2 + channel / 2 there.
  const auto* deltas = reinterpret_cast<const uint16_t*>(bytes + 256);
  const auto* places = deltas + 16;
  for (size_t i = 0; i < 15; ++i) {
    EXPECT_EQ(places[i], i);
    EXPECT_EQ(deltas[i], 0x0000);
  }
  EXPECT_EQ(places[15], 256 + 10 * 2);
  EXPECT_EQ(deltas[15], 0x4C00);  // 21 - 5 = 16
  EXPECT_EQ(s.codec.block_bytes(), 320u);
}

TEST(KvQuant, HandComputedValueBlock) {
  Subject s("bits=2,outliers=1.5", Side::kValue, 16);
  SetPlainBasis(&s, 0, 0);
  AlignedBuffer<float> rows(64 * 16);  // channels 0 to 7 are 2, 8 to 15 are 6: mid 4, half 2
  for (size_t i = 0; i < rows.size(); ++i) rows[i] = i % 16 < 8 ? 2.0f : 6.0f;
  for (size_t t = 0; t < 16; ++t) rows[t * 16 + 5] = 50.0f + static_cast<float>(t);
  const AlignedBuffer<std::byte> block = s.Encode(rows);
  const auto* bytes = reinterpret_cast<const uint8_t*>(block.data());
  // Byte 64 j + 4 c + i of the tile holds channel c of tokens 4 j + i, 16 + 4 j + i, ...: fields of code 0 or 3, but code 3
  // in the lowest field of channel 5.
  for (size_t k = 0; k < 256; ++k) {
    const size_t c = k % 64 / 4;
    ASSERT_EQ(bytes[k], c >= 8 ? 0xFF : c == 5 ? 0x03 : 0x00) << k;
  }
  const auto* mids = reinterpret_cast<const uint16_t*>(bytes + 256);
  const auto *halves = mids + 64, *deltas = halves + 64, *places = deltas + 16;
  for (size_t t = 0; t < 64; ++t) {
    EXPECT_EQ(mids[t], 0x4400);    // 4
    EXPECT_EQ(halves[t], 0x4000);  // 2
  }
  for (size_t t = 0; t < 16; ++t) {
    EXPECT_EQ(places[t], 5 * 64 + t);
    EXPECT_EQ(ToFloat(F16{deltas[t]}), 44.0f + static_cast<float>(t));  // 50 + t - 6
  }
}

// ---- numbers of the paper

// App. M: K = b + 32 rho + 32 / D + 32 / L, V = b + 32 rho + 64 / D.
TEST(KvQuant, BitsOfThePaperAndOurs) {
  const double rho = 0.01, wide = 4096, tokens = 131072;
  const double paper = (3 + 32 * rho + 32 / wide + 32 / tokens + 3 + 32 * rho + 64 / wide) / 2;
  EXPECT_NEAR(paper, 3.332, 5e-4);
  const auto bits = [](Side side) {
    return static_cast<double>(TryMake("bits=3", side, 128)->block_bytes()) * 8 / (64 * 128);
  };
  EXPECT_EQ(bits(Side::kKey), 3 + 0.3125);
  EXPECT_EQ(bits(Side::kValue), 3 + 0.3125 + 0.25);
  const double positions = 32.0 / wide;  // shared by all heads of the layer
  EXPECT_NEAR((bits(Side::kKey) + positions + bits(Side::kValue)) / 2, 3.4414, 1e-4);
}

// ---- outliers

TEST(KvQuant, OutliersAreExactToFp16) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    Subject s("bits=2", side, 128, TestPositions::kScattered);
    s.Fit(Fp16NormalRows(2048, 128, 1));
    AlignedBuffer<float> rows = Fp16NormalRows(64, 128, 2);
    // Outliers before RoPE, where they are looked for.
    for (int i = 0; i < 40; ++i) rows[static_cast<size_t>(i * 197)] = static_cast<float>(i % 2 == 0 ? 30 + i : -30 - i);
    const AlignedBuffer<float> before = [&] {
      AlignedBuffer<float> copy(rows.size());
      std::copy_n(rows.data(), rows.size(), copy.data());
      return copy;
    }();
    if (side == Side::kKey) TurnRows(s.rope.rope(), s.rope.positions(), 64, rows.data());
    AlignedBuffer<float> decoded = s.Decode(s.Encode(rows));
    if (side == Side::kKey) TurnRowsBack(s.rope.rope(), s.rope.positions(), 64, decoded.data());
    for (int i = 0; i < 40; ++i) {
      const size_t at = static_cast<size_t>(i * 197);
      EXPECT_NEAR(decoded[at], before[at], std::abs(before[at]) * 0x1p-10f) << i;
    }
  }
}

TEST(KvQuant, OutliersDoNotStretchARange) {
  const auto error = [](const char* options) {
    Subject s(options, Side::kValue, 128);
    s.Fit(Fp16NormalRows(2048, 128, 1));
    AlignedBuffer<float> rows = Fp16NormalRows(64, 128, 2);
    for (size_t t = 0; t < 64; ++t) rows[t * 128 + t] = 100.0f;
    const AlignedBuffer<float> decoded = s.Decode(s.Encode(rows));
    double sum = 0;
    for (size_t i = 0; i < rows.size(); ++i) sum += i % 129 == 0 ? 0.0 : std::pow(decoded[i] - rows[i], 2.0);
    return sum / static_cast<double>(rows.size());
  };
  EXPECT_LT(error("bits=3"), 0.05);
  EXPECT_GT(error("bits=3,outliers=0"), 0.5);
}

TEST(OutlierPicker, KeepsTheFirstInAnyOrder) {
  std::vector<Outlier> all;
  for (int i = 0; i < 500; ++i) all.push_back({static_cast<float>(i % 50), static_cast<uint16_t>(i), 0.0f});
  std::mt19937 random(1);
  std::shuffle(all.begin(), all.end(), random);
  OutlierPicker picker(16);
  for (const Outlier& o : all) picker.Offer(o);
  EXPECT_EQ(picker.least_key(), 48.0f);
  picker.Sort();
  std::vector<int> places;
  for (const Outlier& o : picker.chosen()) places.push_back(o.place);
  // Ten of key 49, then the six lowest places of key 48.
  EXPECT_THAT(places, testing::ElementsAre(48, 49, 98, 99, 148, 149, 198, 199, 248, 249, 298, 299, 349, 399, 449, 499));
  OutlierPicker none(0);
  none.Offer({1.0f, 0, 0.0f});
  EXPECT_TRUE(none.chosen().empty());
}

// ---- RoPE

TEST(KvQuant, BytesDoNotDependOnPositions) {
  Subject here("", Side::kKey, 64), there("", Side::kKey, 64, TestPositions::kScattered);
  here.Fit(Fp16NormalRows(2048, 64, 1));
  there.Fit(Fp16NormalRows(2048, 64, 1));
  AlignedBuffer<float> a = Fp16NormalRows(64, 64, 2), b = Fp16NormalRows(64, 64, 2);
  TurnRows(here.rope.rope(), here.rope.positions(), 64, a.data());
  TurnRows(there.rope.rope(), there.rope.positions(), 64, b.data());
  const auto x = here.Encode(a), y = there.Encode(b);
  size_t different = 0;
  for (size_t i = 0; i < x.size(); ++i) different += x[i] != y[i];
  EXPECT_LE(different, x.size() / 50);  // turning there and back rounds
}

double ScoreError(const Subject& s, const AlignedBuffer<float>& rows, int heads) {
  const int dim = s.state().shape.dim;
  const AlignedBuffer<std::byte> block = s.Encode(rows);
  const AlignedBuffer<float> decoded = s.Decode(block);
  const AlignedBuffer<float> queries = Fp16NormalRows(heads, dim, 5);
  AlignedBuffer<std::byte> prepared(static_cast<size_t>(heads) * s.state().prepared_head_bytes);
  AlignedBuffer<float> scores(static_cast<size_t>(heads) * 64);
  s.codec.verbs.prepare_query(*s.codec.state, s.context(), queries.data(), heads, prepared.data());
  s.codec.verbs.score(*s.codec.state, s.context(), block.data(), prepared.data(), heads, scores.data());
  double error = 0, norm = 0;
  for (int i = 0; i < heads * 64; ++i) {
    double sum = 0;
    for (int c = 0; c < dim; ++c) {
      sum += static_cast<double>(queries[static_cast<size_t>(i / 64 * dim + c)]) *
             static_cast<double>(decoded[static_cast<size_t>(i % 64 * dim + c)]);
    }
    error += std::pow(static_cast<double>(scores[static_cast<size_t>(i)]) - sum, 2);
    norm += sum * sum;
  }
  return std::sqrt(error / norm);
}

TEST(KvQuant, ScoreIsQueryTimesDecodeForEveryKindOfRope) {
  for (const auto positions : {TestPositions::kConsecutive, TestPositions::kScattered}) {
    for (const int turned : {32, 88, 128}) {
      for (const bool interleaved : {false, true}) {
        RopeShape shape = RopeShape::OfBase(500000, turned, interleaved);
        shape.attention_factor = 1.3f;
        Subject s("bits=3", Side::kKey, 128, positions, shape);
        s.Fit(Fp16NormalRows(1024, 128, 1));
        EXPECT_LT(ScoreError(s, Fp16NormalRows(64, 128, 2), 5), 1e-3) << turned << interleaved;
      }
    }
  }
}

// Keys of a model with biases: channels far from zero, others far smaller.
TEST(KvQuant, ScoreCopesWithUnevenChannels) {
  const auto uneven = [](int tokens, unsigned seed) {
    AlignedBuffer<float> rows = Fp16NormalRows(tokens, 128, seed);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t c = i % 128;
      rows[i] = c % 16 == 3 ? 40.0f + 4.0f * rows[i] : rows[i] * (c % 2 == 0 ? 1.0f : 0.1f);
    }
    return rows;
  };
  Subject s("bits=4", Side::kKey, 128);
  s.Fit(uneven(2048, 1));
  AlignedBuffer<float> rows = uneven(64, 2);
  TurnRows(s.rope.rope(), s.rope.positions(), 64, rows.data());
  EXPECT_LT(ScoreError(s, rows, 4), 1e-3);
}

// ---- fit

TEST(KvQuant, LevelsAndRangesFollowTheData) {
  Subject s("bits=4", Side::kKey, 32);
  AlignedBuffer<float> rows = Fp16NormalRows(20000, 32, 1);
  for (size_t i = 0; i < rows.size(); ++i) {
    if (i % 32 == 7) rows[i] = 10.0f + 3.0f * rows[i];
    if (i % 32 == 9) rows[i] = 2.0f;  // constant
  }
  s.Fit(rows);
  const BasisView view(s.state(), s.basis.data());
  // 0.5 % on either side: 2.576 standard deviations.
  EXPECT_NEAR(ToFloat(view.halves[0]), 2.576, 0.12);
  EXPECT_NEAR(ToFloat(view.mids[0]), 0.0, 0.1);
  EXPECT_NEAR(ToFloat(view.halves[7]), 3 * 2.576, 0.4);
  EXPECT_NEAR(ToFloat(view.mids[7]), 10.0, 0.3);
  EXPECT_EQ(ToFloat(view.mids[9]), 2.0f);
  EXPECT_NEAR(ToFloat(view.halves[9]), ToFloat(view.halves[7]) / 1024, 1e-5);
  for (int i = 0; i < 15; ++i) EXPECT_LT(view.levels[i], view.levels[i + 1]);
}

TEST(KvQuant, FitWeighsChannelsByMetricTimesSquaredRange) {
  // Channel 0 is uniform, channel 1 has two clusters; which of them the levels fit is the metric's decision.
  AlignedBuffer<float> rows(4096 * 16);
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform(-1.0f, 1.0f);
  for (size_t i = 0; i < rows.size(); ++i) {
    const float u = uniform(random);
    rows[i] = i % 16 == 0 ? u : i % 16 == 1 ? std::copysign(1.0f + 0.02f * u, u) : 0.0f;
  }
  const auto smallest_level = [&](double first, double second) {
    std::vector<double> metric(16 * 16);
    metric[0] = first;
    metric[17] = second;
    Subject s("bits=2,outliers=0,qnorm=off", Side::kKey, 16);
    s.Fit(rows, metric.data());
    const BasisView view(s.state(), s.basis.data());
    float least = 1.0f;
    for (int i = 0; i < 4; ++i) least = std::min(least, std::abs(LevelValue(view.levels[i])));
    return least;
  };
  EXPECT_NEAR(smallest_level(1.0, 1e-6), 0.25f, 0.03f);
  EXPECT_GT(smallest_level(1e-6, 1.0), 0.9f);
}

TEST(KvQuant, RefusesTooFewRowsAndBadBases) {
  const Codec codec = *TryMake("", Side::kKey, 64);
  AlignedBuffer<std::byte> basis(codec.state->basis_bytes);
  const AlignedBuffer<float> rows = Fp16NormalRows(64, 64, 1);
  EXPECT_THAT(kInfo.fit_basis(*codec.state, {.rows = rows.data(), .tokens = 63}, basis.data()).message(),
              HasSubstr("63 rows to fit to; at least 64 are needed"));
  ASSERT_TRUE(kInfo.fit_basis(*codec.state, {.rows = rows.data(), .tokens = 64}, basis.data()).ok());
  EXPECT_TRUE(kInfo.check_basis(*codec.state, basis.data()).ok());
  const auto damaged = [&](size_t at, uint16_t word) {
    AlignedBuffer<std::byte> copy(basis.size());
    std::copy_n(basis.data(), basis.size(), copy.data());
    std::memcpy(copy.data() + at, &word, 2);
    return kInfo.check_basis(*codec.state, copy.data()).code();
  };
  EXPECT_EQ(damaged(16 + 2, 0x7FC0), StatusCode::kCorruption);           // threshold NaN
  EXPECT_EQ(damaged(80, 0x7C00), StatusCode::kCorruption);               // mid infinite
  EXPECT_EQ(damaged(80 + 2 * 64, 0x0000), StatusCode::kCorruption);      // half 0
  EXPECT_EQ(damaged(80 + 2 * 64 + 2, 0xBC00), StatusCode::kCorruption);  // half negative
}

// ---- what is refused

TEST(KvQuant, RefusesOptionsByName) {
  const auto message = [](std::string_view options) { return TryMake(options, Side::kKey, 128).status().message(); };
  EXPECT_EQ(message("bits=5"), "codec kvquant: bits=5 is not accepted; accepted: 2, 3, 4");
  EXPECT_THAT(message("outliers=6"), HasSubstr("accepted: 0..5 in steps of 0.25"));
  EXPECT_THAT(message("qnorm=maybe"), HasSubstr("accepted: auto, on, off"));
  EXPECT_THAT(message("fit=100"), HasSubstr("fit=100 is not accepted; accepted: 0, 256..1048576"));
}

TEST(KvQuant, SaysWhatItNeeds) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    const Codec calibrated = *TryMake("", side, 128), fitted = *TryMake("fit=512", side, 128);
    EXPECT_TRUE(calibrated.state->needs_calibration);
    EXPECT_FALSE(fitted.state->needs_calibration);
    EXPECT_TRUE(fitted.state->needs_basis);
    EXPECT_EQ(fitted.state->basis_min_tokens, 512);
    EXPECT_EQ(fitted.state->keys_before_rope, side == Side::kKey);
    EXPECT_EQ(fitted.state->basis_per_layer, side == Side::kValue);
  }
}

TEST(KvQuant, RefusesBlocksWithoutWhatTheyNeed) {
  for (const auto implementation : {Implementation::kBest, Implementation::kReference}) {
    const Codec codec = *TryMake("", Side::kKey, 64, implementation);
    AlignedBuffer<std::byte> block(codec.block_bytes()), basis(codec.state->basis_bytes);
    AlignedBuffer<float> rows(64 * 64);
    EXPECT_THAT(codec.verbs.encode(*codec.state, {}, rows.data(), block.data()).message(),
                HasSubstr("without a basis"));
    EXPECT_THAT(codec.verbs.decode(*codec.state, {.basis = basis.data()}, block.data(), rows.data()).message(),
                HasSubstr("without positions"));
  }
}

TEST(KvQuant, RefusesWhatDoesNotFitFp16) {
  Subject keys("", Side::kKey, 64);
  keys.Fit(Fp16NormalRows(512, 64, 1));
  Subject values("outliers=0", Side::kValue, 64);
  values.Fit(Fp16NormalRows(512, 64, 1));
  AlignedBuffer<float> large(64 * 64);  // beyond what a cache holds
  for (size_t i = 0; i < large.size(); ++i) large[i] = i % 2 == 0 ? 3e5f : -3e5f;
  for (const Subject* s : {&keys, &values}) {
    AlignedBuffer<std::byte> block(s->codec.block_bytes());
    const Status status = s->codec.verbs.encode(*s->codec.state, s->context(), large.data(), block.data());
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("does not fit fp16"));
  }
}

TEST(KvQuant, RefusesCorruptBlocks) {
  for (const Side side : {Side::kKey, Side::kValue}) {
    Subject s("", side, 64);
    s.Fit(Fp16NormalRows(512, 64, 1));
    const auto with = [&](size_t at, uint16_t word) {
      AlignedBuffer<std::byte> block = s.Encode(Fp16NormalRows(64, 64, 2));
      std::memcpy(block.data() + at, &word, 2);
      AlignedBuffer<float> rows(64 * 64);
      return s.codec.verbs.decode(*s.codec.state, s.context(), block.data(), rows.data()).code();
    };
    EXPECT_EQ(with(s.state().deltas_ofs, 0x7C00), StatusCode::kCorruption);
    EXPECT_EQ(with(s.state().places_ofs + 2, 0), StatusCode::kCorruption);             // not rising
    EXPECT_EQ(with(s.state().places_ofs + 2 * 47, 64 * 64), StatusCode::kCorruption);  // outside
    if (side == Side::kKey) continue;
    EXPECT_EQ(with(s.state().mids_ofs, 0x7E00), StatusCode::kCorruption);
    EXPECT_EQ(with(s.state().halves_ofs, 0x8001), StatusCode::kCorruption);
  }
}

}  // namespace
}  // namespace kvant::kvquant
