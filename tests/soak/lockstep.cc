#include "lockstep.h"

#include <algorithm>

#include "base/check.h"
#include "eval/divergence.h"

namespace kvant {
namespace {

using enum OperationKind;

// Logits of a prefill are of its last token only: all of them would need more memory than the cache.
constexpr size_t kAllLogitsMax = 64;

std::string Say(const Status& status) { return status.ok() ? "works" : status.message(); }

Status CutTo(Runner& runner, int sequence, int64_t tokens) {
  runner.UseSequence(sequence);
  return runner.Truncate(tokens);
}

Status Load(Lockstep::Side& side, size_t sequence) { return side.runner->LoadState(side.saved[sequence]); }

Status Save(Lockstep::Side& side, size_t sequence) {
  Result<std::vector<std::byte>> state = side.runner->SaveState();
  if (!state.ok()) return state.status();
  side.saved[sequence] = std::move(state).value();
  return Status::Ok();
}

}  // namespace

Lockstep::Lockstep(Side tested, Side reference, int sequences)
    : tested_(std::move(tested)), reference_(std::move(reference)), held_(static_cast<size_t>(sequences)) {
  for (Side* side : {&tested_, &reference_}) {
    side->saved.resize(held_.size());
    side->memory.start = side->memory.most = side->runner->cache_use().memory_bytes;
  }
}

Result<Lockstep> Lockstep::Open(const RunnerOptions& tested, const RunnerOptions& reference) {
  Result<std::unique_ptr<Runner>> first = Runner::Open(tested);
  if (!first.ok()) return first.status();
  Result<std::unique_ptr<Runner>> second = Runner::Open(reference);
  if (!second.ok()) return second.status();
  return Lockstep({.runner = std::move(first).value(), .saved = {}}, {.runner = std::move(second).value(), .saved = {}},
                  tested.sequences);
}

// ---- One call on both ----

Result<Lockstep::Outcome> Lockstep::Both(const Call& call, const Call& undo) {
  const Status tested = call(tested_), reference = call(reference_);
  if (tested.ok() && reference.ok()) return Outcome::kDone;
  if (tested.code() == reference.code()) {
    ++refused_;
    return Outcome::kRefused;
  }
  const bool tested_lacks = tested.code() == StatusCode::kOutOfMemory && reference.ok();
  const bool reference_lacks = reference.code() == StatusCode::kOutOfMemory && tested.ok();
  if (undo && (tested_lacks || reference_lacks)) {
    ++one_sided_;
    KVANT_TRY(undo(tested_lacks ? reference_ : tested_));
    return Outcome::kRefused;
  }
  return Status::Internal("tested: " + Say(tested) + "; reference: " + Say(reference));
}

void Lockstep::Compare(int rows, std::vector<double>* kl) const {
  for (int i = 0; i < rows; ++i) {
    const std::span<const float> p = reference_.runner->Logits(i), q = tested_.runner->Logits(i);
    kl->push_back(Kl(p, LogSumExp(p), q, LogSumExp(q)));
  }
}

void Lockstep::UseSequence(int sequence) {
  tested_.runner->UseSequence(sequence);
  reference_.runner->UseSequence(sequence);
}

// ---- The operations ----

Status Lockstep::Feed(const Operation& operation, std::vector<double>* kl) {
  const std::vector<int>& tokens = operation.tokens;
  const bool all = tokens.size() <= kAllLogitsMax;
  const int64_t before = reference_.runner->num_tokens();
  const Result<Outcome> outcome = Both([&](Side& side) { return side.runner->Decode(tokens, all); },
                                       [&](Side& side) { return side.runner->Truncate(before); });
  if (!outcome.ok()) return outcome.status();
  if (*outcome == Outcome::kRefused) return Status::Ok();
  tokens_ += static_cast<int64_t>(tokens.size());
  Compare(all ? static_cast<int>(tokens.size()) : 1, kl);
  return Status::Ok();
}

Status Lockstep::FeedTogether(const Operation& operation, std::vector<double>* kl) {
  const size_t width = held_.size();
  for (int64_t step = 0; step < operation.count; ++step) {
    const auto tokens = std::span(operation.tokens).subspan(static_cast<size_t>(step) * width, width);
    const auto undo = [&](Side& side) {
      for (size_t s = 0; s < width; ++s) KVANT_TRY(CutTo(*side.runner, static_cast<int>(s), held_[s] + step));
      return Status::Ok();
    };
    const Result<Outcome> outcome = Both([&](Side& side) { return side.runner->DecodeTogether(tokens); }, undo);
    if (!outcome.ok()) return outcome.status();
    if (*outcome == Outcome::kRefused) return Status::Ok();
    tokens_ += static_cast<int64_t>(width);
    Compare(static_cast<int>(width), kl);
  }
  return Status::Ok();
}

// What comes before the feeding.
Status Lockstep::Change(const Operation& operation, bool* done) {
  const auto sequence = static_cast<size_t>(operation.sequence);
  const auto empty = [](Side& side) { return side.runner->Truncate(0); };  // what a load that failed leaves
  std::vector<std::pair<Call, Call>> calls;                                // what is done, what undoes it
  switch (operation.kind) {
    case kRollBack:
    case kCut:
    case kEmpty:
      calls = {{[&](Side& side) { return side.runner->Truncate(operation.first); }, nullptr}};
      break;
    case kShift:
      calls = {{[&](Side& side) { return side.runner->Shift(operation.first, operation.count); }, nullptr}};
      break;
    case kSave:
      calls = {{[=](Side& side) { return Save(side, sequence); }, nullptr}};
      break;
    case kLoad:
      calls = {{[=](Side& side) { return Load(side, sequence); }, empty}};
      break;
    case kSaveAndLoad:
      calls = {{[=](Side& side) { return Save(side, sequence); }, nullptr},
               {[=](Side& side) { return Load(side, sequence); }, empty}};
      break;
    default:
      break;
  }
  *done = true;
  for (const auto& [call, undo] : calls) {
    const Result<Outcome> outcome = Both(call, undo);
    if (!outcome.ok()) return outcome.status();
    *done = *done && *outcome == Outcome::kDone;
  }
  return Status::Ok();
}

Status Lockstep::Do(const Operation& operation, std::vector<double>* kl) {
  UseSequence(operation.sequence);
  if (operation.kind == kTogether) {
    KVANT_TRY(FeedTogether(operation, kl));
  } else {
    bool done = false;
    KVANT_TRY(Change(operation, &done));
    if (done && !operation.tokens.empty()) KVANT_TRY(Feed(operation, kl));
  }
  WatchMemory();
  return CompareHeld();
}

// ---- What must hold after each ----

Status Lockstep::CompareHeld() {
  for (size_t s = 0; s < held_.size(); ++s) {
    UseSequence(static_cast<int>(s));
    held_[s] = reference_.runner->num_tokens();
    const auto tested = static_cast<long long>(tested_.runner->num_tokens()), held = static_cast<long long>(held_[s]);
    if (tested == held) continue;
    return Status::Internal(StrFormat("sequence %zu: tested holds %lld tokens, reference %lld", s, tested, held));
  }
  return Status::Ok();
}

void Lockstep::WatchMemory() {
  for (Side* side : {&tested_, &reference_}) {
    side->memory.end = side->runner->cache_use().memory_bytes;
    side->memory.most = std::max(side->memory.most, side->memory.end);
  }
}

// Memory of tokens that were forgotten comes back with the next graph of their stream, so all get one more token first.
Status Lockstep::Finish() {
  const auto empty = [this](Side& side) {
    for (size_t s = held_.size(); s-- > 0;) KVANT_TRY(CutTo(*side.runner, static_cast<int>(s), 0));
    return Status::Ok();
  };
  for (Side* side : {&tested_, &reference_}) {
    KVANT_TRY(empty(*side));
    KVANT_TRY(side->runner->DecodeTogether(std::vector<int>(held_.size())));
    KVANT_TRY(empty(*side));
  }
  WatchMemory();
  return CompareHeld();
}

}  // namespace kvant
