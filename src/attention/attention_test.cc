#include "attention/attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "attention/reference.h"
#include "base/aligned_buffer.h"
#include "base/simd_target.h"
#include "cache/kv_store.h"
#include "kvant/kv_cache.h"

namespace kvant {
namespace {

// Against attention over the decoded cache. The rows have no mean, so the output is the small remainder of an average
// and any error is large beside it: the hardest case. Codes of 2 bits are read with queries of 8.
constexpr double kMaxError = 2e-3;
constexpr double kMaxCoarseError = 1.5e-2;

std::vector<float> Normal(size_t n, uint32_t seed, float scale = 1.0f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(n);
  for (float& v : values) v = scale * normal(rng);
  return values;
}

// A cache of one layer and what to ask of it.
struct Problem {
  std::string scheme = "int:4";
  LayerShape shape = {2, 128, 128};
  int heads_per_kv = 4;
  int64_t tokens = 500;
  int num_queries = 1;
  float query_scale = 1.0f;  // 3: a sharp softmax
  float softcap = 0.0f;
  bool slopes = false;
  bool sinks = false;
  std::vector<F16> mask = {};  // [num_queries, tokens] or empty
};

class Attention {
 public:
  explicit Attention(const Problem& p) : p_(p) {
    Result<Scheme> scheme = Scheme::Parse(p.scheme);
    EXPECT_TRUE(scheme.ok()) << scheme.status().message();
    auto cache = KvCache::Create(
        {.scheme = *scheme, .layers = {p.shape}, .ropes = {RopeShape::OfBase(10000, p.shape.k_dim, false)}});
    EXPECT_TRUE(cache.ok()) << cache.status().message();
    cache_ = *std::move(cache);
    for (int64_t first = 0; first < p.tokens; first += 200) {  // chunks that do not end with pages
      const int64_t count = std::min<int64_t>(200, p.tokens - first);
      const auto k =
          Normal(static_cast<size_t>(count * p.shape.kv_heads * p.shape.k_dim), 1 + static_cast<uint32_t>(first));
      const auto v =
          Normal(static_cast<size_t>(count * p.shape.kv_heads * p.shape.v_dim), 2 + static_cast<uint32_t>(first));
      EXPECT_TRUE(cache_->Append(0, 0, count, k.data(), v.data()).ok());
      EXPECT_TRUE(cache_->Seal(0).ok());
    }
    const int q_heads = p.shape.kv_heads * p.heads_per_kv;
    queries_ = Normal(static_cast<size_t>(p.num_queries * q_heads * p.shape.k_dim), 3, p.query_scale);
    extra_ = Normal(static_cast<size_t>(q_heads), 4);
    for (float& e : extra_) e = std::abs(e);
    out_.resize(static_cast<size_t>(p.num_queries * q_heads * p.shape.v_dim));
  }

  AttendArgs Args() {
    const int q_heads = p_.shape.kv_heads * p_.heads_per_kv;
    return {.keys = cache_->keys(0).View(0),
            .values = cache_->values(0).View(0),
            .kv_heads = p_.shape.kv_heads,
            .q_heads = q_heads,
            .k_dim = p_.shape.k_dim,
            .v_dim = p_.shape.v_dim,
            .num_queries = p_.num_queries,
            .queries = queries_.data(),
            .query_row_stride = static_cast<size_t>(q_heads * p_.shape.k_dim),
            .query_head_stride = static_cast<size_t>(p_.shape.k_dim),
            .out = out_.data(),
            .out_row_stride = static_cast<size_t>(q_heads * p_.shape.v_dim),
            .out_head_stride = static_cast<size_t>(p_.shape.v_dim),
            .scale = 1.0f / std::sqrt(static_cast<float>(p_.shape.k_dim)),
            .softcap = p_.softcap,
            .mask = p_.mask.empty() ? nullptr : p_.mask.data(),
            .mask_row_stride = static_cast<size_t>(p_.tokens),
            .mask_columns = p_.tokens,
            .maybe_slopes = p_.slopes ? extra_.data() : nullptr,
            .maybe_sinks = p_.sinks ? extra_.data() : nullptr};
  }

  std::vector<float> Fused(int threads = 1) {
    const AttendArgs args = Args();
    AlignedBuffer<std::byte> workspace(AttendWorkspaceBytes(args, threads));
    ThreadTeam(threads).Run([&](const Team& team) { Attend(team, args, workspace.data()); });
    return out_;
  }
  std::vector<float> Reference() {
    EXPECT_TRUE(ReferenceAttend(Args()).ok());
    return out_;
  }
  KvCache& cache() { return *cache_; }

 private:
  Problem p_;
  std::unique_ptr<KvCache> cache_;
  std::vector<float> queries_, extra_, out_;
};

double RelativeError(const std::vector<float>& got, const std::vector<float>& want) {
  double error = 0, norm = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    error += std::pow(static_cast<double>(got[i]) - static_cast<double>(want[i]), 2);
    norm += std::pow(static_cast<double>(want[i]), 2);
  }
  return std::sqrt(error / norm);
}

void ExpectMatches(const Problem& p, double max_error = kMaxError) {
  Attention run(p);
  const std::vector<float> want = run.Reference();
  EXPECT_LE(RelativeError(run.Fused(), want), max_error) << p.scheme;
}

std::vector<F16> CausalMask(int num_queries, int64_t tokens) {
  std::vector<F16> mask(static_cast<size_t>(num_queries * tokens));
  for (int q = 0; q < num_queries; ++q) {
    for (int64_t t = 0; t < tokens; ++t) {
      const bool visible = t <= tokens - num_queries + q;
      mask[static_cast<size_t>(q * tokens + t)] = ToF16(visible ? 0.0f : -std::numeric_limits<float>::infinity());
    }
  }
  return mask;
}

TEST(AttentionTest, MatchesReferenceForEverySchemeAndTarget) {
  for (const std::string& target : SimdTargets()) {
    ASSERT_TRUE(SetSimdTarget(target));
    for (const char* scheme :
         {"raw", "raw:bf16", "int:8", "int:4", "int:3", "int:4,axis=token,group=32", "kivi:4", "decoquant:4",
          "decoquant:3", "decoquant:4,gauge=klt,fit=256", "qjl", "k=int:4 v=decoquant:2",
          "k=qjl:outliers=0 v=kivi:2 recent=0", "kvquant:4,fit=256", "kvquant:2,fit=256 sink=0"}) {
      ExpectMatches({.scheme = scheme});
    }
    for (const char* scheme :
         {"int:2", "k=raw v=int:2 sink=17", "kivi:2", "decoquant:2", "decoquant:2,gauge=bal,fit=256", "asymkv", "vidkv",
          "calibquant", "calibquant:stats=segment", "calibquant:stats=segment,refit=128"}) {
      ExpectMatches({.scheme = scheme}, kMaxCoarseError);
    }
  }
  SetSimdTarget("");
}

TEST(AttentionTest, HeadSizesAndSharing) {
  for (const int dim : {64, 80, 96, 128, 192, 256}) {
    ExpectMatches({.scheme = "k=int:4,axis=channel v=decoquant:3", .shape = {2, dim, dim}});
  }
  for (const int heads : {1, 2, 3, 4, 5, 6, 7, 8, 12, 16}) ExpectMatches({.heads_per_kv = heads});
  ExpectMatches({.shape = {3, 192, 128}});
}

TEST(AttentionTest, AnyLength) {
  for (const int64_t tokens : {1, 2, 63, 64, 65, 127, 128, 129, 200, 1000}) {
    ExpectMatches({.scheme = "k=int:4 v=int:4 sink=4", .tokens = tokens});
    ExpectMatches({.scheme = "k=int:4 v=int:4 sink=0 recent=100", .tokens = tokens});
  }
}

// A sharp softmax shows errors of the scores: 8 bits of query are then the limit for narrow codes.
TEST(AttentionTest, SharpSoftmax) {
  ExpectMatches({.scheme = "int:8", .tokens = 2000, .query_scale = 3.0f});
  ExpectMatches({.scheme = "int:4", .tokens = 2000, .query_scale = 3.0f});
  ExpectMatches({.scheme = "decoquant:2", .tokens = 2000, .query_scale = 3.0f}, 2e-2);
}

TEST(AttentionTest, MasksSoftcapSlopesAndSinks) {
  const auto mask = CausalMask(5, 500);
  ExpectMatches({.num_queries = 5, .mask = mask});
  ExpectMatches({.num_queries = 5, .softcap = 2.0f, .mask = mask});
  ExpectMatches({.sinks = true});
  std::vector<F16> distances(500);
  for (int t = 0; t < 500; ++t) distances[static_cast<size_t>(t)] = ToF16(-0.01f * static_cast<float>(499 - t));
  ExpectMatches({.slopes = true, .mask = distances});
  auto window = CausalMask(1, 500);
  for (size_t t = 0; t < 300; ++t) window[t] = ToF16(-std::numeric_limits<float>::infinity());
  ExpectMatches({.mask = window});
}

TEST(AttentionTest, LogitMapsApplyToCodedKeysAlone) {
  const char* plain = "k=calibquant:bits=8 v=int:8 sink=4 recent=100";
  const char* mapped = "k=calibquant:bits=8,gain=0.9,shift=-2 v=int:8 sink=4 recent=100";
  ExpectMatches({.scheme = mapped});
  ExpectMatches({.scheme = mapped, .softcap = 2.0f, .sinks = true});
  EXPECT_GT(RelativeError(Attention({.scheme = mapped}).Fused(), Attention({.scheme = plain}).Fused()), 0.1);
  // Where every key is coded, a shift is the same for all and goes.
  const auto all_coded = [](const char* scheme) { return Attention({.scheme = scheme, .tokens = 512}).Fused(); };
  EXPECT_LE(RelativeError(all_coded("k=calibquant:bits=8,shift=-2 v=int:8 sink=0 recent=0"),
                          all_coded("k=calibquant:bits=8 v=int:8 sink=0 recent=0")),
            1e-4);
}

TEST(AttentionTest, NothingVisibleGivesZeros) {
  Problem p = {.mask = std::vector<F16>(500, ToF16(-std::numeric_limits<float>::infinity()))};
  for (const float x : Attention(p).Fused()) EXPECT_EQ(x, 0.0f);
}

// What a mask hides must not count: garbage there changes nothing, not even by a bit.
TEST(AttentionTest, HiddenRowsDoNotCount) {
  Problem p = {.scheme = "raw", .mask = CausalMask(1, 500)};
  for (size_t t = 100; t < 228; ++t) p.mask[t] = ToF16(-std::numeric_limits<float>::infinity());
  Attention run(p);
  const std::vector<float> before = run.Fused();
  const std::vector<float> garbage = Normal(256, 77, 1e4f);
  std::vector<int64_t> rows = {100, 164, 227};
  for (const int64_t row : rows) {
    const RowSource source = {garbage.data(), 256 * sizeof(float), false};
    ASSERT_TRUE(run.cache().keys(0).Write(Team(), 0, {&row, 1}, source).ok());
    ASSERT_TRUE(run.cache().values(0).Write(Team(), 0, {&row, 1}, source).ok());
  }
  ASSERT_TRUE(run.cache().Seal(0).ok());
  EXPECT_EQ(run.Fused(), before);
}

TEST(AttentionTest, TeamsOfAnySizeAgree) {
  Problem p = {.tokens = 3000};
  Attention run(p);
  const std::vector<float> one = run.Fused(1);
  for (const int threads : {2, 3, 5})
    EXPECT_LE(RelativeError(run.Fused(threads), one), 2e-5) << threads;  // weights have 14 bits
  EXPECT_EQ(run.Fused(3), run.Fused(3));
}

}  // namespace
}  // namespace kvant
