#include "llama/runner.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <numeric>

#include "llama/test_model.h"

namespace kvant {
namespace {

using testing::HasSubstr;

constexpr const char* kRaw = "k=raw v=raw";

RunnerOptions Options(const std::string& cache) {
  return {.model_path = TestModel(), .cache = cache, .context = 2048, .batch = 256, .threads = 1};
}

std::unique_ptr<Runner> Open(const RunnerOptions& options) {
  Result<std::unique_ptr<Runner>> runner = Runner::Open(options);
  EXPECT_TRUE(runner.ok()) << runner.status().message();
  return runner.ok() ? std::move(runner).value() : nullptr;
}

std::string OpenError(const RunnerOptions& options) {
  const Result<std::unique_ptr<Runner>> runner = Runner::Open(options);
  return runner.ok() ? "opened" : runner.status().message();
}

bool OnCuda() { return Runner::FindDevice("auto")->name != "CPU"; }

std::vector<int> Text(const Runner& runner, size_t count) {
  std::vector<int> tokens = runner.Tokenize(TestText(), /*add_bos=*/true);
  EXPECT_GE(tokens.size(), count);
  tokens.resize(count);
  return tokens;
}

std::vector<double> Probabilities(std::span<const float> logits) {
  const double max = *std::ranges::max_element(logits);
  std::vector<double> p;
  for (const float x : logits) p.push_back(std::exp(x - max));
  const double sum = std::accumulate(p.begin(), p.end(), 0.0);
  for (double& x : p) x /= sum;
  return p;
}

double Divergence(std::span<const float> a, std::span<const float> b) {
  const std::vector<double> p = Probabilities(a);
  const std::vector<double> q = Probabilities(b);
  double sum = 0;
  for (size_t i = 0; i < p.size(); ++i) sum += p[i] > 0 ? p[i] * std::log(p[i] / q[i]) : 0;
  return sum;
}

/// Logits of the tokens from `first` on, fed in chunks of `chunk` tokens.
std::vector<std::vector<float>> LogitsInChunks(Runner& runner, const std::vector<int>& tokens, size_t first,
                                               size_t chunk) {
  std::vector<std::vector<float>> rows;
  EXPECT_TRUE(runner.Decode(std::span(tokens).first(first), false).ok());
  for (size_t i = first; i < tokens.size(); i += chunk) {
    const auto part = std::span(tokens).subspan(i, std::min(chunk, tokens.size() - i));
    EXPECT_TRUE(runner.Decode(part, true).ok());
    for (int t = 0; t < static_cast<int>(part.size()); ++t) {
      rows.emplace_back(runner.Logits(t).begin(), runner.Logits(t).end());
    }
  }
  return rows;
}

std::vector<float> Copy(std::span<const float> values) { return {values.begin(), values.end()}; }

// ---- agreement with stock llama.cpp

class RunnerChunks : public testing::TestWithParam<size_t> {};

TEST_P(RunnerChunks, RawAgreesWithStock) {
  KVANT_NEED_MODEL();
  const auto stock = Open(Options("f16"));
  const auto raw = Open(Options(kRaw));
  const std::vector<int> tokens = Text(*stock, 600);
  const auto a = LogitsInChunks(*stock, tokens, 500, 100);
  const auto b = LogitsInChunks(*raw, tokens, 500, GetParam());
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += Divergence(a[i], b[i]);
  // Rounding: other sums of the same products move the 8-bit activations of the model.
  EXPECT_LT(sum / static_cast<double>(a.size()), 1e-3);
}

// One token, several rows in the fused kernel, a chunk that is decoded first.
INSTANTIATE_TEST_SUITE_P(Sizes, RunnerChunks, testing::Values(1, 7, 100));

// Positions come from the graph; a wrong one would cost far more than codes of 4 bits do.
constexpr const char* kBeforeRope = "k=kvquant:4,fit=256 v=raw";

RunnerOptions BeforeRope() {
  RunnerOptions options = Options(kBeforeRope);
  options.device = "cpu";
  return options;
}

TEST(Runner, KeysBeforeRopeAgreeWithStock) {
  KVANT_NEED_MODEL();
  const auto stock = Open(Options("f16"));
  const auto turned = Open(BeforeRope());
  const std::vector<int> tokens = Text(*stock, 600);
  const auto a = LogitsInChunks(*stock, tokens, 500, 100);
  for (const size_t chunk : {1, 7, 100}) {
    ASSERT_TRUE(turned->Truncate(0).ok());
    const auto b = LogitsInChunks(*turned, tokens, 500, chunk);
    double sum = 0;
    for (size_t i = 0; i < a.size(); ++i) sum += Divergence(a[i], b[i]);
    EXPECT_LT(sum / static_cast<double>(a.size()), 0.02) << chunk;
  }
  EXPECT_GT(turned->cache_use().footprint.by_kind[static_cast<int>(StreamKind::kOutliers)], 0u) << "nothing was sealed";
}

TEST(Runner, StockCacheIsWhatLlamaAllocates) {
  KVANT_NEED_MODEL();
  const auto runner = Open(Options("llama:q8_0/q4_0"));
  ASSERT_TRUE(runner->Decode(Text(*runner, 100), false).ok());
  const CacheUse use = runner->cache_use();
  EXPECT_EQ(use.fp16_bytes, 100u * 12 * 2 * 256 * 2);
  EXPECT_NEAR(use.footprint.bits_per_value(), (8.5 + 4.5) / 2, 1e-9);
  EXPECT_EQ(use.memory_bytes, 2048 * use.footprint.total() / 100);
}

// ---- memory

TEST(Runner, MemoryGrowsWithTokensHeld) {
  KVANT_NEED_MODEL();
  const auto runner = Open(Options(kRaw));
  const std::vector<int> tokens = Text(*runner, 1024);
  EXPECT_EQ(runner->cache_use().footprint.total(), 0u);
  ASSERT_TRUE(runner->Decode(std::span(tokens).first(256), false).ok());
  const CacheUse quarter = runner->cache_use();
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(256), false).ok());
  const CacheUse whole = runner->cache_use();
  EXPECT_EQ(quarter.fp16_bytes, 256u * 12 * 2 * 256 * 2);
  EXPECT_EQ(whole.fp16_bytes, 4 * quarter.fp16_bytes);
  const size_t beside = OnCuda() ? size_t{6} << 20 : 0;  // memory of a device comes in pieces of 2 MiB
  EXPECT_GT(whole.memory_bytes, quarter.memory_bytes + whole.fp16_bytes / 2);
  EXPECT_LT(quarter.memory_bytes, quarter.fp16_bytes * 5 / 4 + beside);
  EXPECT_LT(whole.memory_bytes, whole.fp16_bytes * 5 / 4 + beside);
  ASSERT_TRUE(runner->Truncate(0).ok());
  EXPECT_EQ(runner->cache_use().footprint.total(), 0u);
}

TEST(Runner, MemoryLimitFailsDecodeAndLeavesTheRestUsable) {
  KVANT_NEED_MODEL();
  RunnerOptions options = Options(kRaw);
  options.memory_limit_bytes = 8 << 20;
  const auto runner = Open(options);
  const std::vector<int> tokens = Text(*runner, 1500);
  ASSERT_TRUE(runner->Decode(std::span(tokens).first(100), false).ok());
  const Status status = runner->Decode(std::span(tokens).subspan(100), false);
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory) << status.message();
  EXPECT_THAT(status.message(), HasSubstr("8388608"));
  EXPECT_EQ(runner->num_tokens(), 100);
  EXPECT_TRUE(runner->Decode(std::span(tokens).subspan(100, 50), false).ok());
}

TEST(Runner, EmptySequencesLeaveTheirMemoryToOthers) {
  KVANT_NEED_MODEL();
  RunnerOptions options = Options(kRaw);
  options.device = "cpu";
  options.context = 512;
  options.sequences = 2;
  options.memory_limit_bytes = 6 << 20;
  const auto runner = Open(options);
  const std::vector<int> tokens = Text(*runner, 400);
  for (const int sequence : {0, 1}) {
    runner->UseSequence(sequence);
    ASSERT_TRUE(runner->Decode(std::span(tokens).first(190), false).ok());
  }
  for (const int sequence : {0, 1}) {
    runner->UseSequence(sequence);
    ASSERT_TRUE(runner->Truncate(0).ok());
  }
  EXPECT_EQ(runner->cache_use().footprint.total(), 0u);
  const Status status = runner->Decode(tokens, false);
  EXPECT_TRUE(status.ok()) << status.message();
}

// ---- state

TEST(Runner, StateComesBackExactly) {
  KVANT_NEED_MODEL();
  const auto runner = Open(Options(kRaw));
  const std::vector<int> tokens = Text(*runner, 402);
  ASSERT_TRUE(runner->Decode(std::span(tokens).first(400), false).ok());
  const Result<std::vector<std::byte>> state = runner->SaveState();
  ASSERT_TRUE(state.ok()) << state.status().message();
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(400, 1), false).ok());
  const std::vector<float> before = Copy(runner->Logits(-1));
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(401, 1), false).ok());
  const Status loaded = runner->LoadState(*state);
  ASSERT_TRUE(loaded.ok()) << loaded.message();
  EXPECT_EQ(runner->num_tokens(), 400);
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(400, 1), false).ok());
  EXPECT_EQ(before, Copy(runner->Logits(-1)));
}

TEST(Runner, StateOfKeysBeforeRopeComesBack) {
  KVANT_NEED_MODEL();
  const auto runner = Open(BeforeRope());
  const std::vector<int> tokens = Text(*runner, 401);
  ASSERT_TRUE(runner->Decode(std::span(tokens).first(400), false).ok());
  const Result<std::vector<std::byte>> state = runner->SaveState();
  ASSERT_TRUE(state.ok()) << state.status().message();
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(400), false).ok());
  const std::vector<float> before = Copy(runner->Logits(-1));
  ASSERT_TRUE(runner->LoadState(*state).ok());
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(400), false).ok());
  EXPECT_LT(Divergence(before, runner->Logits(-1)), 0.03);  // coded a second time, by another basis

  RunnerOptions raw_options = Options(kRaw);
  raw_options.device = "cpu";
  const auto raw = Open(raw_options);  // its states do not say where keys were
  ASSERT_TRUE(raw->Decode(std::span(tokens).first(400), false).ok());
  const Result<std::vector<std::byte>> foreign = raw->SaveState();
  ASSERT_TRUE(foreign.ok());
  Status status = runner->LoadState(*foreign);
  if (status.ok()) status = runner->Decode(std::span(tokens).subspan(400), false);
  EXPECT_THAT(status.message(), HasSubstr("does not say its position"));
}

TEST(Runner, ForeignStateIsRefused) {
  KVANT_NEED_MODEL();
  const auto runner = Open(Options(kRaw));
  ASSERT_TRUE(runner->Decode(Text(*runner, 64), false).ok());
  std::vector<std::byte> state = *runner->SaveState();
  EXPECT_EQ(runner->LoadState({}).code(), StatusCode::kCorruption);
  EXPECT_EQ(runner->LoadState(std::span(state).first(state.size() - 1)).code(), StatusCode::kCorruption);
  state[0] = std::byte{'x'};
  EXPECT_EQ(runner->LoadState(state).code(), StatusCode::kCorruption);
  EXPECT_EQ(runner->num_tokens(), 64);
}

TEST(Runner, TruncatedTokensAreForgotten) {
  KVANT_NEED_MODEL();
  const auto runner = Open(Options(kRaw));
  const std::vector<int> tokens = Text(*runner, 301);
  ASSERT_TRUE(runner->Decode(tokens, false).ok());
  const std::vector<float> before = Copy(runner->Logits(-1));
  ASSERT_TRUE(runner->Truncate(200).ok());
  EXPECT_EQ(runner->num_tokens(), 200);
  ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(200), false).ok());
  EXPECT_LT(Divergence(before, runner->Logits(-1)), 2e-3);
  EXPECT_EQ(runner->Truncate(302).code(), StatusCode::kInvalidArgument);
}

// ---- several sequences, context shift

TEST(Runner, SequencesDoNotSeeEachOther) {
  KVANT_NEED_MODEL();
  for (const char* cache : {"f16", kRaw}) {
    RunnerOptions options = Options(cache);
    options.context = 512;
    const auto alone = Open(options);
    options.sequences = 3;
    const auto together = Open(options);
    const std::vector<int> tokens = Text(*alone, 700);
    std::vector<int> next;
    for (int s = 0; s < 3; ++s) {
      together->UseSequence(s);
      const auto part = std::span(tokens).subspan(static_cast<size_t>(200 * s), static_cast<size_t>(150 + 20 * s));
      ASSERT_TRUE(together->Decode(part, false).ok());
      EXPECT_EQ(together->num_tokens(), 150 + 20 * s);
      next.push_back(tokens[static_cast<size_t>(s)]);
    }
    const Status status = together->DecodeTogether(next);
    ASSERT_TRUE(status.ok()) << status.message();
    for (int s = 0; s < 3; ++s) {
      ASSERT_TRUE(alone->Truncate(0).ok());
      const auto part = std::span(tokens).subspan(static_cast<size_t>(200 * s), static_cast<size_t>(150 + 20 * s));
      ASSERT_TRUE(alone->Decode(part, false).ok());
      ASSERT_TRUE(alone->Decode(std::span(next).subspan(static_cast<size_t>(s), 1), false).ok());
      EXPECT_LT(Divergence(alone->Logits(-1), together->Logits(s)), 2e-3) << cache << ", sequence " << s;
    }
    EXPECT_EQ(together->num_tokens(), 191);
    ASSERT_TRUE(together->Truncate(0).ok());
    together->UseSequence(1);
    EXPECT_EQ(together->num_tokens(), 171) << "another sequence was cut";
    EXPECT_EQ(together->DecodeTogether(std::vector<int>(4)).message(), "4 tokens for 3 sequences");
  }
}

TEST(Runner, ShiftMovesTokensUp) {
  KVANT_NEED_MODEL();
  std::vector<std::vector<float>> logits;
  for (const char* cache : {"f16", kRaw}) {
    const auto runner = Open(Options(cache));
    const std::vector<int> tokens = Text(*runner, 501);
    ASSERT_TRUE(runner->Decode(std::span(tokens).first(500), false).ok());
    const Status status = runner->Shift(4, 200);
    ASSERT_TRUE(status.ok()) << status.message();
    EXPECT_EQ(runner->num_tokens(), 300);
    ASSERT_TRUE(runner->Decode(std::span(tokens).subspan(500), false).ok());
    logits.push_back(Copy(runner->Logits(-1)));
    EXPECT_EQ(runner->Shift(4, 298).message(), "cannot forget 298 tokens from 4 on: 301 are held");

    ASSERT_TRUE(runner->Truncate(0).ok());
    ASSERT_TRUE(runner->Decode(tokens, false).ok());
    EXPECT_GT(Divergence(logits.back(), runner->Logits(-1)), 1e-3) << "the shift did nothing";
  }
  EXPECT_LT(Divergence(logits[0], logits[1]), 2e-3);
}

// ---- text

TEST(Runner, TextComesBackFromItsTokens) {
  KVANT_NEED_MODEL();
  const auto runner = Open(Options("f16"));
  const std::string text = "The secret number of Kalo is 48213.\n\tÄ";
  std::string back;
  for (const int token : runner->Tokenize(text, false)) back += runner->Detokenize(token);
  EXPECT_EQ(back, text);
  EXPECT_EQ(runner->ApplyChatTemplate("hello").status().code(), StatusCode::kNotSupported);
}

// ---- what is refused

TEST(Runner, InspectReadsShapes) {
  KVANT_NEED_MODEL();
  const Result<ModelInfo> info = Runner::Inspect(TestModel());
  ASSERT_TRUE(info.ok()) << info.status().message();
  EXPECT_EQ(info->architecture, "llama");
  EXPECT_EQ(info->layers.size(), 12u);
  EXPECT_EQ(info->layers[5].kv_heads, 2);
  EXPECT_EQ(info->layers[5].k_dim, 128);
  EXPECT_EQ(info->layers[5].v_dim, 128);
  EXPECT_EQ(info->q_heads, 8);
  EXPECT_EQ(info->vocab_size, 8192);
  EXPECT_EQ(info->context_train, 16384);
  EXPECT_GT(info->parameters, 29'000'000);
  EXPECT_THAT(info->description, HasSubstr("Q8_0"));
  EXPECT_FALSE(info->has_chat_template);
}

TEST(Runner, WrongFilesAreNamed) {
  RunnerOptions options = {.model_path = "no/such/model.gguf"};
  EXPECT_THAT(OpenError(options), HasSubstr("no/such/model.gguf: No such file"));
  options.model_path = std::string(KVANT_SOURCE_DIR) + "/LICENSE";
  EXPECT_THAT(OpenError(options), HasSubstr("not a GGUF model file"));
}

TEST(Runner, TruncatedFileIsNamed) {
  KVANT_NEED_MODEL();
  const std::string path = testing::TempDir() + "/truncated.gguf";
  std::filesystem::copy_file(TestModel(), path, std::filesystem::copy_options::overwrite_existing);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 1000);
  EXPECT_THAT(OpenError({.model_path = path}), HasSubstr("truncated.gguf: truncated: tensor "));
  std::filesystem::resize_file(path, 5000);
  EXPECT_THAT(OpenError({.model_path = path}), HasSubstr("not a GGUF model file"));
}

TEST(Runner, WrongOptionsAreNamed) {
  KVANT_NEED_MODEL();
  EXPECT_THAT(OpenError(Options("nonsense")), HasSubstr("nonsense"));
  EXPECT_THAT(OpenError(Options("llama:q9")), HasSubstr("q9: unknown type; accepted: f16, bf16, q8_0"));
  RunnerOptions options = Options("f16");
  options.context = 16385;
  EXPECT_THAT(OpenError(options), HasSubstr("context 16385: the model was trained for at most 16384"));
  options.context = 0;
  EXPECT_THAT(OpenError(options), HasSubstr("context 0: at least 1"));
  options = Options("f16");
  options.memory_limit_bytes = 1000;
  EXPECT_THAT(OpenError(options), HasSubstr("the limit is 1000"));
}

TEST(Runner, ContextFullSaysBothNumbers) {
  KVANT_NEED_MODEL();
  RunnerOptions options = Options(kRaw);
  options.context = 300;
  const auto runner = Open(options);
  const std::vector<int> tokens = Text(*runner, 400);
  ASSERT_TRUE(runner->Decode(std::span(tokens).first(290), false).ok());
  const Status status = runner->Decode(std::span(tokens).first(11), false);
  EXPECT_EQ(status.message(), "context full: 290 tokens held, 11 more do not fit in 300");
  EXPECT_EQ(runner->Decode(std::vector<int>{8192}, false).message(), "token 8192: the vocabulary has 8192");
  EXPECT_TRUE(runner->Decode(std::span(tokens).first(10), false).ok());
}

}  // namespace
}  // namespace kvant
