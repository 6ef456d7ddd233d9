#include "operation.h"

#include <algorithm>
#include <array>

#include "base/check.h"
#include "kvant/status.h"

namespace kvant {
namespace {

using enum OperationKind;

// What is wrong shows after rollback, shifts and loads; feeding brings the sequences to where these have something to do.
struct Row {
  const char* name;
  size_t weight;
};
constexpr std::array<Row, kOperationKinds> kTable = {{{"speculate", 24},
                                                      {"chunk", 12},
                                                      {"prefill", 6},
                                                      {"together", 16},
                                                      {"roll back", 18},
                                                      {"cut", 4},
                                                      {"empty", 1},
                                                      {"shift", 6},
                                                      {"save", 5},
                                                      {"load", 5},
                                                      {"save and load", 4}}};

constexpr int64_t kRollBackMax = 8;
constexpr size_t kPrefillMin = 65, kPrefillMax = 1500;  // and at most half of the context
constexpr size_t kShiftKeepMin = 4, kShiftKeepMax = 64, kStepsMax = 40;
constexpr size_t kElsewhere = 4;  // one feed in so many reads on at another place of the text
constexpr size_t kOverfull = 8;   // one feed in so many that do not fit is made all the same

bool Forgets(OperationKind kind) { return kind == kRollBack || kind == kCut || kind == kEmpty; }

}  // namespace

const char* Name(OperationKind kind) { return kTable[static_cast<size_t>(kind)].name; }

std::string Describe(const Operation& operation) {
  std::string text = Name(operation.kind);
  if (operation.kind == kTogether) return text + StrFormat(": %lld steps", static_cast<long long>(operation.count));
  text += StrFormat(" sequence %d:", operation.sequence);
  const auto first = static_cast<long long>(operation.first), count = static_cast<long long>(operation.count);
  if (Forgets(operation.kind)) text += StrFormat(" to %lld,", first);
  if (operation.kind == kShift) text += StrFormat(" keep %lld, forget %lld,", first, count);
  return text + StrFormat(" feed %zu", operation.tokens.size());
}

OperationSource::OperationSource(uint64_t seed, std::vector<int> text, int sequences, int context)
    : dice_(seed), text_(std::move(text)), context_(context), readers_(static_cast<size_t>(sequences)) {
  KVANT_CHECK(!text_.empty() && sequences >= 1);
}

OperationKind OperationSource::DrawKind() {
  size_t sum = 0;
  for (const Row& row : kTable) sum += row.weight;
  size_t draw = dice_.Below(sum), kind = 0;
  while (draw >= kTable[kind].weight) draw -= kTable[kind++].weight;
  return static_cast<OperationKind>(kind);
}

std::vector<int> OperationSource::Read(int sequence, size_t count) {
  size_t& at = readers_[static_cast<size_t>(sequence)].at;
  if (dice_.Below(kElsewhere) == 0) at = dice_.Below(text_.size());
  std::vector<int> tokens;
  for (size_t i = 0; i < count; ++i) tokens.push_back(text_[at++ % text_.size()]);
  return tokens;
}

void OperationSource::FillTogether(Operation* operation) {
  const size_t steps = Between(1, kStepsMax), width = readers_.size();
  operation->count = static_cast<int64_t>(steps);
  operation->tokens.resize(steps * width);
  for (size_t s = 0; s < width; ++s) {
    const std::vector<int> run = Read(static_cast<int>(s), steps);
    for (size_t step = 0; step < steps; ++step) operation->tokens[step * width + s] = run[step];
  }
}

void OperationSource::FillShift(Operation* operation, int64_t held) {
  operation->first = std::min(static_cast<int64_t>(Between(kShiftKeepMin, kShiftKeepMax)), held - 1);
  operation->count = static_cast<int64_t>(Between(1, static_cast<size_t>(held - operation->first)));
}

// REQUIRES: something is held, unless the kind is one that feeds
Operation OperationSource::Fill(OperationKind kind, int sequence, const std::vector<int64_t>& held) {
  Operation operation = {.kind = kind, .sequence = sequence, .tokens = {}};
  const int64_t tokens = held[static_cast<size_t>(sequence)];
  Reader& reader = readers_[static_cast<size_t>(sequence)];
  size_t feed = 1;
  if (kind == kSpeculate) feed = Between(1, 8);
  if (kind == kChunk) feed = Between(9, 64);
  if (kind == kPrefill)
    feed = Between(kPrefillMin, std::clamp(static_cast<size_t>(context_) / 2, kPrefillMin, kPrefillMax));
  if (kind == kRollBack) operation.first = tokens - static_cast<int64_t>(Between(1, std::min(kRollBackMax, tokens)));
  if (kind == kCut) operation.first = static_cast<int64_t>(dice_.Below(static_cast<size_t>(tokens)));
  if (kind == kShift) FillShift(&operation, tokens);
  if (Forgets(kind)) reader.GoBack(static_cast<size_t>(tokens - operation.first), text_.size());
  if (kind == kSave || kind == kSaveAndLoad) {
    reader.saved_at = reader.at;
    reader.has_saved = true;
  }
  if (kind == kLoad) reader.at = reader.saved_at;
  if (kind == kSave) return operation;
  if (kind == kTogether) {
    FillTogether(&operation);
  } else {
    operation.tokens = Read(sequence, feed);
  }
  return operation;
}

bool OperationSource::Fits(const Operation& operation, const std::vector<int64_t>& held) const {
  if (operation.kind == kTogether) return *std::ranges::max_element(held) + operation.count <= context_;
  if (operation.kind > kTogether) return true;
  const auto tokens = static_cast<int64_t>(operation.tokens.size());
  return held[static_cast<size_t>(operation.sequence)] + tokens <= context_;
}

Operation OperationSource::Next(const std::vector<int64_t>& held) {
  for (;;) {
    const OperationKind kind = DrawKind();
    int sequence = static_cast<int>(dice_.Below(readers_.size()));
    if (kind > kTogether && held[static_cast<size_t>(sequence)] == 0) continue;
    if (kind == kLoad && !readers_[static_cast<size_t>(sequence)].has_saved) continue;
    Operation operation = Fill(kind, sequence, held);
    if (Fits(operation, held) || dice_.Below(kOverfull) == 0) return operation;
    if (kind == kTogether) sequence = static_cast<int>(std::ranges::max_element(held) - held.begin());
    if (held[static_cast<size_t>(sequence)] > 0) return Fill(kShift, sequence, held);
  }
}

}  // namespace kvant
