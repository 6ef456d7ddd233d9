// Two runners on one model that are given the same operations and must agree.
#pragma once

#include <functional>
#include <memory>
#include <vector>

#include "llama/runner.h"
#include "operation.h"

namespace kvant {

/// Of one runner's cache, in bytes.
struct MemoryUse {
  size_t start = 0;
  size_t most = 0;
  size_t end = 0;
};

class Lockstep {
 public:
  struct Side {
    std::unique_ptr<Runner> runner;
    std::vector<std::vector<std::byte>> saved;  ///< a state for each sequence; empty: none
    MemoryUse memory = {};
  };

  /// Errors: those of Runner::Open. REQUIRES: the same model, context and number of sequences
  static Result<Lockstep> Open(const RunnerOptions& tested, const RunnerOptions& reference);

  /// Does it on both. `kl` gets KL(reference || tested), in nats, of each row of logits that they have.
  /// Errors: Internal, saying how they differ: in an error, or in the number of tokens.
  Status Do(const Operation& operation, std::vector<double>* kl);
  /// Forgets all tokens, so that MemoryUse::end can be read. Errors: as Do.
  Status Finish();

  const std::vector<int64_t>& held() const { return held_; }  ///< tokens of each sequence
  const MemoryUse& tested_memory() const { return tested_.memory; }
  const MemoryUse& reference_memory() const { return reference_.memory; }
  const Runner& reference() const { return *reference_.runner; }
  int64_t tokens() const { return tokens_; }        ///< fed so far
  int64_t refused() const { return refused_; }      ///< calls that failed alike on both
  int64_t one_sided() const { return one_sided_; }  ///< calls that found no memory on one, and were undone on the other

 private:
  using Call = std::function<Status(Side&)>;
  enum class Outcome { kDone, kRefused };

  Lockstep(Side tested, Side reference, int sequences);
  Result<Outcome> Both(const Call& call, const Call& undo);
  Status Feed(const Operation& operation, std::vector<double>* kl);
  Status FeedTogether(const Operation& operation, std::vector<double>* kl);
  Status Change(const Operation& operation, bool* done);
  void Compare(int rows, std::vector<double>* kl) const;
  Status CompareHeld();
  void UseSequence(int sequence);
  void WatchMemory();

  Side tested_, reference_;
  std::vector<int64_t> held_;
  int64_t tokens_ = 0, refused_ = 0, one_sided_ = 0;
};

}  // namespace kvant
