// A model for tests without libllama: one token per byte, logits computed from the tokens held.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <string>
#include <vector>

#include "llama/runner.h"

namespace kvant {

/// Predicts pseudo-random bytes, except after "Answer:": there it copies the number that follows the asked
/// name in the text, as a model with working retrieval does, and ends the line; and after "Call:", where it copies what
/// stands behind the first "Call:". `cache` decides how wrong it is: "f16" is exact, "noise" adds a perturbation to the
/// logits, "blind" also copies nothing, "leaky" sees how many sequences there are, "stuck" cannot shift, "small" has room for
/// kSmall tokens.
class FakeRunner : public Runner {
 public:
  static constexpr int kVocab = 257;  ///< the bytes and BOS
  static constexpr int kBos = 256;
  static constexpr int kContextTrain = 8192;
  static constexpr size_t kSmall = 300;

  static Result<std::unique_ptr<Runner>> Open(const RunnerOptions& options) {
    constexpr std::array kCaches = {"f16", "noise", "blind", "leaky", "stuck", "small"};
    if (std::ranges::find(kCaches, options.cache) == kCaches.end()) {
      return Status::InvalidArgument("cache: '" + options.cache + "' is unknown; accepted: f16, noise, blind");
    }
    return std::unique_ptr<Runner>(new FakeRunner(options));
  }

  const ModelInfo& info() const override { return info_; }
  std::vector<int> Tokenize(std::string_view text, bool add_bos) const override {
    std::vector<int> tokens;
    if (add_bos) tokens.push_back(kBos);
    for (char c : text) tokens.push_back(static_cast<unsigned char>(c));
    return tokens;
  }
  std::string Detokenize(int token) const override {
    return token == kBos ? "" : std::string(1, static_cast<char>(token));
  }
  bool IsEndOfGeneration(int token) const override { return token == kBos; }
  Result<std::string> ApplyChatTemplate(std::string_view) const override {
    return Status::NotSupported("the fake has no chat template");
  }

  Status Decode(std::span<const int> tokens, bool all_logits) override {
    if (held().size() + tokens.size() > static_cast<size_t>(options_.context)) {
      return Status::InvalidArgument(
          StrFormat("context full: %zu + %zu of %d", held().size(), tokens.size(), options_.context));
    }
    if (options_.cache == "small" && held().size() + tokens.size() > kSmall)
      return Status::OutOfMemory("the fake is full");
    logits_.clear();
    for (size_t i = 0; i < tokens.size(); ++i) {
      Hold(tokens[i]);
      if (all_logits || i + 1 == tokens.size()) logits_.push_back(Predict());
    }
    return Status::Ok();
  }
  std::span<const float> Logits(int i) const override {
    return logits_[i < 0 ? logits_.size() - 1 : static_cast<size_t>(i)];
  }
  void UseSequence(int sequence) override {
    sequence_ = static_cast<size_t>(sequence);
    logits_.clear();
  }
  Status DecodeTogether(std::span<const int> tokens) override {
    const size_t used = sequence_;
    logits_.clear();
    for (sequence_ = 0; sequence_ < tokens.size(); ++sequence_) {
      Hold(tokens[sequence_]);
      logits_.push_back(Predict());
    }
    sequence_ = used;
    return Status::Ok();
  }
  int64_t num_tokens() const override { return static_cast<int64_t>(held().size()); }
  Status Truncate(int64_t num_tokens) override {
    held().resize(static_cast<size_t>(num_tokens));
    return Status::Ok();
  }
  Status Shift(int64_t first, int64_t count) override {
    if (options_.cache == "stuck") return Status::NotSupported("the fake is stuck");
    held().erase(static_cast<size_t>(first), static_cast<size_t>(count));
    return Status::Ok();
  }
  Result<std::vector<std::byte>> SaveState() override { return Status::NotSupported("the fake has no state"); }
  Status LoadState(std::span<const std::byte>) override { return Status::NotSupported("the fake has no state"); }

  CacheUse cache_use() const override {
    CacheUse use;
    const size_t bits = options_.cache == "f16" ? 16 : 4;
    use.footprint.rows = held().size();
    use.footprint.values = held().size() * 64;
    use.footprint.by_kind[static_cast<int>(StreamKind::kCodes)] = held().size() * 64 * bits / 8;
    use.memory_bytes = use.footprint.by_kind[static_cast<int>(StreamKind::kCodes)];
    use.fp16_bytes = held().size() * 64 * 2;
    return use;
  }

 private:
  explicit FakeRunner(const RunnerOptions& options) : options_(options), held_(static_cast<size_t>(options.sequences)) {
    info_.path = options.model_path;
    info_.architecture = "fake";
    info_.vocab_size = kVocab;
    info_.context_train = kContextTrain;
    info_.layers = {{.kv_heads = 2, .k_dim = 64, .v_dim = 64}};
  }

  std::string& held() { return held_[sequence_]; }
  const std::string& held() const { return held_[sequence_]; }
  void Hold(int token) { held() += token == kBos ? std::string(1, '\0') : Detokenize(token); }

  std::vector<float> Predict() const {
    uint64_t state = 1469598103934665603u;
    for (size_t i = held().size() - std::min<size_t>(4, held().size()); i < held().size(); ++i) {
      state = (state ^ static_cast<unsigned char>(held()[i])) * 1099511628211u;
    }
    if (options_.cache == "leaky") state ^= held_.size();
    std::vector<float> logits(kVocab);
    for (float& logit : logits) {
      state = state * 6364136223846793005u + 1442695040888963407u;
      logit = static_cast<float>(state >> 40) / static_cast<float>(1 << 22);
      if (options_.cache != "f16") logit += static_cast<float>((state >> 20) & 0xFFFF) / 65536.0f;
    }
    logits[kBos] = -10.0f;
    for (const int copied : {Retrieve(), CopyCall()}) {
      if (copied >= 0 && options_.cache != "blind") logits[static_cast<size_t>(copied)] = 50.0f;
    }
    return logits;
  }

  // The next byte of the answer when the text ends in "... NAME...? Answer:" and some digits; -1 otherwise.
  int Retrieve() const {
    const size_t question = held().rfind("Question:");
    if (question == std::string::npos) return -1;
    const size_t answer = held().find("Answer:", question);
    if (answer == std::string::npos) return -1;
    const std::string said = held().substr(answer + 7);
    // The asked name is the only capitalised word besides the question words.
    size_t name = held().find_last_of("ABCDEFGHIJKLMNOPQRSTUVWXYZ", answer - 1);
    const std::string asked =
        held().substr(name, held().find_first_not_of("abcdefghijklmnopqrstuvwxyz", name + 1) - name);
    const size_t fact = held().find(asked + " ");
    if (fact >= question) return -1;
    const std::string number = " " + held().substr(held().find_first_of("0123456789", fact), 5) + ".\n";
    return said.size() < number.size() ? static_cast<unsigned char>(number[said.size()]) : -1;
  }

  // The next byte of the first call when the text ends in another "Call:" and a part of it; -1 otherwise.
  int CopyCall() const {
    const size_t first = held().find("Call:"), last = held().rfind("Call:");
    if (first == last) return -1;
    const size_t next = first + (held().size() - last);
    return next <= held().find('\n', first) ? static_cast<unsigned char>(held()[next]) : -1;
  }

  RunnerOptions options_;
  ModelInfo info_;
  std::vector<std::string> held_;  ///< text of each sequence
  size_t sequence_ = 0;
  std::vector<std::vector<float>> logits_;
};

}  // namespace kvant
