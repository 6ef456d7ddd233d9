// Every codec on every SIMD target, head size and number of heads, held to the contract of codec.h. No code per codec.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <optional>
#include <random>
#include <utility>

#include "base/aligned_buffer.h"
#include "base/all_finite.h"
#include "base/simd_target.h"
#include "codec/registry.h"
#include "codec/test_rope.h"

namespace kvant {
namespace {

// ------------------------------------------------------------------ rows

enum class RowKind { kGaussian, kConstant, kOneOutlier, kZero, kRotated };

AlignedBuffer<float> MakeRows(RowKind kind, int rows, int dim, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  AlignedBuffer<float> x(static_cast<size_t>(rows * dim));
  for (int t = 0; t < rows; ++t) {
    for (int c = 0; c < dim; ++c) {
      float& v = x[static_cast<size_t>(t * dim + c)];
      v = kind == RowKind::kZero ? 0.0f : kind == RowKind::kConstant ? 0.75f : normal(rng);
      if (kind == RowKind::kOneOutlier && t == 17 && c == dim / 2) v = 300.0f;
      if (kind == RowKind::kRotated) {  // a large constant vector turned by RoPE, as biased keys are
        const double angle = t / std::pow(10000.0, 2.0 * (c % (dim / 2)) / dim);
        v += static_cast<float>(6.0 * (c < dim / 2 ? std::cos(angle) : std::sin(angle)));
      }
    }
  }
  return x;
}

double Norm(const float* x, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  return std::sqrt(sum);
}

double Distance(const float* a, const float* b, size_t n) {
  double sum = 0;
  for (size_t i = 0; i < n; ++i) sum += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
  return std::sqrt(sum);
}

// ------------------------------------------------------------------ one configuration

struct Subject {
  Codec codec;
  TestRope rope;
  BlockContext context = {};

  const CodecState& state() const { return *codec.state; }
  size_t values() const { return static_cast<size_t>(kTokensPerPage * codec.shape().dim); }
};

struct FittedBasis {
  AlignedBuffer<std::byte> bytes;
};

// Fitted once for all tests: with `fit` to rotated rows; for codecs that need a basis otherwise, and for those that need
// a calibration always, to rows like those that most tests encode.
Result<const std::byte*> Fit(const Codec& codec, const Expectation& e, bool fit) {
  static std::map<std::tuple<const Expectation*, int, bool>, FittedBasis> bases;
  const CodecState& state = *codec.state;
  const bool rotated = fit && !state.needs_calibration;
  FittedBasis& basis = bases[{&e, state.shape.dim, rotated}];
  if (basis.bytes.size() > 0) return basis.bytes.data();
  const int rows = std::max(state.basis_min_tokens, state.needs_calibration ? 2048 : 1024);
  AlignedBuffer<float> sample = MakeRows(rotated ? RowKind::kRotated : RowKind::kGaussian, rows, state.shape.dim, 99);
  TurnFitRows(state, rows, sample.data());
  AlignedBuffer<std::byte> bytes(state.basis_bytes);
  KVANT_TRY(codec.info->fit_basis(state, {.rows = sample.data(), .tokens = static_cast<size_t>(rows)}, bytes.data()));
  KVANT_TRY(codec.info->check_basis(state, bytes.data()));
  basis.bytes = std::move(bytes);
  return basis.bytes.data();
}

// Configures an expectation's codec; `fit` gives it a basis where it has one, of rows that are not those of the tests.
// A codec without a default basis gets one of Gaussian rows instead of none.
Result<Subject> MakeSubject(const CodecInfo& info, const Expectation& e, int dim, bool fit,
                            Implementation implementation, TestPositions positions) {
  const Result<CodecOptions> options = ParseCodecOptions(info, e.options);
  if (!options.ok()) return options.status();
  Result<Codec> codec = MakeCodec(info.name, *options, {.side = e.side, .dim = dim}, implementation);
  if (!codec.ok()) return codec.status();
  Subject setup{*std::move(codec), TestRope(dim, positions), {}};
  setup.context = setup.rope.Context(setup.state(), nullptr);
  if ((fit || NeedsBasis(setup.state())) && info.fit_basis != nullptr && setup.state().basis_bytes > 0) {
    const Result<const std::byte*> basis = Fit(setup.codec, e, fit);
    if (!basis.ok()) return basis.status();
    setup.context.basis = *basis;
  }
  return setup;
}

AlignedBuffer<std::byte> Encoded(const Subject& s, const float* rows) {
  AlignedBuffer<std::byte> block(s.codec.block_bytes());
  const Status status = s.codec.verbs.encode(s.state(), s.context, rows, block.data());
  EXPECT_TRUE(status.ok()) << status.message();
  return block;
}

AlignedBuffer<float> Decoded(const Subject& s, const std::byte* block) {
  AlignedBuffer<float> rows(s.values());
  const Status status = s.codec.verbs.decode(s.state(), s.context, block, rows.data());
  EXPECT_TRUE(status.ok()) << status.message();
  return rows;
}

// ------------------------------------------------------------------ parameters

struct Param {
  const CodecInfo* info;
  const Expectation* expectation;
  std::string target;
};

std::vector<Param> Params() {
  std::vector<Param> params;
  for (const CodecInfo* info : AllCodecs()) {
    for (const Expectation& e : info->expectations) {
      for (const std::string& target : SimdTargets()) params.push_back({info, &e, target});
    }
  }
  return params;
}

std::string ParamName(const ::testing::TestParamInfo<Param>& info) {
  std::string name = std::string(info.param.info->name) + "_" + std::string(info.param.expectation->options) + "_" +
                     (info.param.expectation->side == Side::kKey ? "K_" : "V_") + info.param.target;
  for (char& c : name) {
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

class ConformanceTest : public ::testing::TestWithParam<Param> {
 protected:
  void SetUp() override { ASSERT_TRUE(SetSimdTarget(GetParam().target)); }
  void TearDown() override { SetSimdTarget(""); }

  // The codec on this target at a head size, or nothing where it refuses the size in words.
  std::optional<Subject> Make(int dim, bool fit, Implementation implementation = Implementation::kBest,
                              TestPositions positions = TestPositions::kConsecutive) {
    Result<Subject> setup = MakeSubject(*GetParam().info, *GetParam().expectation, dim, fit, implementation, positions);
    if (setup.ok()) return *std::move(setup);
    EXPECT_NE(dim, 128) << setup.status().message();
    EXPECT_FALSE(setup.status().message().empty());
    return std::nullopt;
  }
};

constexpr int kDims[] = {64, 80, 96, 128, 192, 256};

// ------------------------------------------------------------------ tests

TEST_P(ConformanceTest, BitsAndErrorAreAsDeclared) {
  const Expectation& e = *GetParam().expectation;
  const auto s = Make(128, false);
  ASSERT_TRUE(s);
  EXPECT_NEAR(static_cast<double>(s->codec.block_bytes()) * 8 / (kTokensPerPage * 128), e.bits_per_value, 1e-9);
  const AlignedBuffer<float> rows = MakeRows(RowKind::kGaussian, kTokensPerPage, 128, 3);
  const AlignedBuffer<float> decoded = Decoded(*s, Encoded(*s, rows.data()).data());
  const double error = Distance(decoded.data(), rows.data(), s->values()) / Norm(rows.data(), s->values());
  EXPECT_GE(error, e.min_error);
  EXPECT_LE(error, e.max_error);
}

TEST_P(ConformanceTest, EveryByteIsWrittenAndEncodingIsDeterministic) {
  for (const int dim : kDims) {
    for (const bool fit : {false, true}) {
      const auto s = Make(dim, fit);
      if (!s) continue;
      const AlignedBuffer<float> rows = MakeRows(RowKind::kGaussian, kTokensPerPage, dim, 4);
      AlignedBuffer<std::byte> a(s->codec.block_bytes()), b(s->codec.block_bytes());
      std::memset(a.data(), 0x00, a.size());
      std::memset(b.data(), 0xFF, b.size());
      ASSERT_TRUE(s->codec.verbs.encode(s->state(), s->context, rows.data(), a.data()).ok());
      ASSERT_TRUE(s->codec.verbs.encode(s->state(), s->context, rows.data(), b.data()).ok());
      EXPECT_EQ(std::memcmp(a.data(), b.data(), a.size()), 0) << "head size " << dim;
    }
  }
}

TEST_P(ConformanceTest, TargetsAgreeAsDeclared) {
  for (const int dim : kDims) {
    for (const bool fit : {false, true}) {
      const auto s = Make(dim, fit);
      const auto reference = Make(dim, fit, Implementation::kReference);
      if (!s) continue;
      Subject same_basis{reference->codec, TestRope(dim), s->context};
      const AlignedBuffer<float> rows = MakeRows(RowKind::kRotated, kTokensPerPage, dim, 5);
      const auto got = Encoded(*s, rows.data());
      const auto want = Encoded(same_basis, rows.data());
      if (GetParam().info->max_code_mismatch == 0.0) {
        EXPECT_EQ(std::memcmp(got.data(), want.data(), want.size()), 0) << "head size " << dim;
      }
      const auto decoded = Decoded(same_basis, got.data());
      const auto expected = Decoded(same_basis, want.data());
      const double error = Distance(expected.data(), rows.data(), s->values());
      EXPECT_NEAR(Distance(decoded.data(), rows.data(), s->values()), error, 0.01 * error) << "head size " << dim;
      // Decoding the same bytes is the same on every target but for the last bits of a float.
      const auto on_target = Decoded(*s, want.data());
      EXPECT_LE(Distance(on_target.data(), expected.data(), s->values()), 1e-4 * Norm(expected.data(), s->values()));
    }
  }
}

TEST_P(ConformanceTest, ScoreIsQueryTimesDecode) {
  if (GetParam().expectation->side != Side::kKey) return;
  const double bound = GetParam().expectation->min_error > kCoarseCodec ? kMaxCoarseScoreError : kMaxVerbError;
  for (const int dim : kDims) {
    for (int variant = 0; variant < 4; ++variant) {
      const bool scattered = variant >= 2;
      const auto s = Make(dim, variant % 2 == 1, Implementation::kBest,
                          scattered ? TestPositions::kScattered : TestPositions::kConsecutive);
      if (!s || (scattered && !s->state().keys_before_rope)) continue;
      const AlignedBuffer<float> rows = MakeRows(RowKind::kGaussian, kTokensPerPage, dim, 6);
      const auto block = Encoded(*s, rows.data());
      const auto decoded = Decoded(*s, block.data());
      for (const int heads : {1, 3, 4, 5, 8, 16}) {
        const AlignedBuffer<float> q = MakeRows(RowKind::kGaussian, heads, dim, 7);
        AlignedBuffer<std::byte> prepared(static_cast<size_t>(heads) * s->state().prepared_head_bytes);
        AlignedBuffer<float> got(static_cast<size_t>(heads * kTokensPerPage)), want(got.size());
        s->codec.verbs.prepare_query(s->state(), s->context, q.data(), heads, prepared.data());
        s->codec.verbs.score(s->state(), s->context, block.data(), prepared.data(), heads, got.data());
        for (int h = 0; h < heads; ++h) {
          for (int t = 0; t < kTokensPerPage; ++t) {
            double sum = 0;
            for (int c = 0; c < dim; ++c) {
              sum += static_cast<double>(q[static_cast<size_t>(h * dim + c)]) *
                     static_cast<double>(decoded[static_cast<size_t>(t * dim + c)]);
            }
            want[static_cast<size_t>(h * kTokensPerPage + t)] = static_cast<float>(sum);
          }
        }
        EXPECT_LE(Distance(got.data(), want.data(), want.size()), bound * Norm(want.data(), want.size()))
            << "head size " << dim << ", heads " << heads;
      }
    }
  }
}

TEST_P(ConformanceTest, AccumulateIsWeightsTimesDecode) {
  if (GetParam().expectation->side != Side::kValue) return;
  for (const int dim : kDims) {
    for (const bool fit : {false, true}) {
      const auto s = Make(dim, fit);
      if (!s) continue;
      const AlignedBuffer<float> rows = MakeRows(RowKind::kGaussian, kTokensPerPage, dim, 8);
      const auto block = Encoded(*s, rows.data());
      const auto decoded = Decoded(*s, block.data());
      for (const int heads : {1, 3, 4, 5, 8, 16}) {
        AlignedBuffer<float> weights = MakeRows(RowKind::kGaussian, heads, kTokensPerPage, 9);
        for (size_t i = 0; i < weights.size(); ++i) weights[i] = std::exp(3.0f * weights[i] - 6.0f);
        for (int t = 0; t < kTokensPerPage; ++t) weights[static_cast<size_t>(t)] = 0.0f;  // a head that sees nothing
        AlignedBuffer<float> acc(static_cast<size_t>(heads * s->state().acc_dim));
        AlignedBuffer<float> got(static_cast<size_t>(heads * dim)), want(got.size());
        s->codec.verbs.accumulate(s->state(), s->context, block.data(), weights.data(), heads, acc.data());
        s->codec.verbs.finish(s->state(), s->context, acc.data(), heads, got.data());
        for (int h = 0; h < heads; ++h) {
          for (int t = 0; t < kTokensPerPage; ++t) {
            for (int c = 0; c < dim; ++c) {
              want[static_cast<size_t>(h * dim + c)] +=
                  weights[static_cast<size_t>(h * kTokensPerPage + t)] * decoded[static_cast<size_t>(t * dim + c)];
            }
          }
        }
        EXPECT_LE(Distance(got.data(), want.data(), want.size()), kMaxVerbError * Norm(want.data(), want.size()) + 1e-6)
            << "head size " << dim << ", heads " << heads;
      }
    }
  }
}

TEST_P(ConformanceTest, OddRowsStayFinite) {
  for (const RowKind kind : {RowKind::kConstant, RowKind::kOneOutlier, RowKind::kZero, RowKind::kRotated}) {
    for (const bool fit : {false, true}) {
      const auto s = Make(128, fit);
      ASSERT_TRUE(s);
      const AlignedBuffer<float> rows = MakeRows(kind, kTokensPerPage, 128, 10);
      const auto block = Encoded(*s, rows.data());
      const auto decoded = Decoded(*s, block.data());
      EXPECT_TRUE(AllFinite(decoded.span())) << static_cast<int>(kind);
      // With a basis an error may be as large as the rows it was fitted to, however small these are.
      const AlignedBuffer<float> fitted = MakeRows(RowKind::kRotated, kTokensPerPage, 128, 99);
      const double smallest = s->context.basis ? Norm(fitted.data(), fitted.size()) : 1e-3;
      EXPECT_LE(Norm(decoded.data(), decoded.size()), 3.0 * Norm(rows.data(), rows.size()) + smallest);
    }
  }
}

TEST_P(ConformanceTest, RandomBytesNeverLeadOutside) {
  std::mt19937 rng(11);
  for (const bool fit : {false, true}) {
    const auto s = Make(128, fit);
    ASSERT_TRUE(s);
    AlignedBuffer<std::byte> block(s->codec.block_bytes());
    AlignedBuffer<float> rows(s->values());
    for (int i = 0; i < 50; ++i) {
      for (size_t b = 0; b < block.size(); ++b) block[b] = static_cast<std::byte>(rng());
      const Status status = s->codec.verbs.decode(s->state(), s->context, block.data(), rows.data());
      EXPECT_TRUE(status.ok() ? AllFinite(rows.span()) : status.code() == StatusCode::kCorruption);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Codecs, ConformanceTest, ::testing::ValuesIn(Params()), ParamName);

TEST(RegistryTest, NamesAndOptionsAreUnique) {
  for (const CodecInfo* info : AllCodecs()) {
    EXPECT_EQ(FindCodec(info->name), info);
    EXPECT_FALSE(info->expectations.empty()) << info->name;
    for (const OptionInfo& a : info->options) {
      EXPECT_EQ(std::count_if(info->options.begin(), info->options.end(),
                              [&](const OptionInfo& b) { return a.name == b.name; }),
                1)
          << info->name << ":" << a.name;
    }
  }
}

}  // namespace
}  // namespace kvant
