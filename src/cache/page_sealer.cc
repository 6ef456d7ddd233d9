#include "cache/page_sealer.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <utility>

namespace kvant {
namespace {

// Pages sealed at a time: while they are, they are held twice.
constexpr size_t kBatchPages = 64;

}  // namespace

Status PageSealer::Seal(const Team& team, Sequence& sequence) {
  // Same answer on every member: nobody changes the sequence before all are in here. For most tokens this is
  // all.
  if (sequence.DuePages(1).empty()) return Status::Ok();
  team.Sync();
  const auto start = std::chrono::steady_clock::now();  // not before: waiting for the others is not encoding
  if (team.leader()) status_.Reset();
  team.Sync();
  fitter_.FitIfWanted(team, sequence, status_);
  SealAll(team, sequence);
  team.Sync();
  if (team.leader()) seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return status_.Get();
}

void PageSealer::SealAll(const Team& team, Sequence& sequence) {
  while (status_.Agree(team)) {
    if (team.leader()) status_.Record(0, Plan(sequence));
    if (!status_.Agree(team) || batch_.empty()) return;
    EncodeShare(team, sequence);
    team.Sync();
    if (team.leader()) Commit(sequence);
  }
}

// ---- plan

Status PageSealer::Plan(const Sequence& sequence) {
  batch_.clear();
  const std::vector<int64_t> due = sequence.DuePages(kBatchPages);
  for (const int64_t page : due) {
    PageSeal seal{.page = page, .sealed = std::make_shared<SealedPage>(), .maybe_sinks = nullptr};
    seal.sealed->maybe_basis = sequence.maybe_basis();
    if (!Reserve(seal)) break;
    batch_.push_back(std::move(seal));
  }
  // A part of what is due is enough to go on: each page sealed makes room for more.
  return due.empty() || !batch_.empty() ? Status::Ok() : pool_->OutOfMemory(format_->Where());
}

bool PageSealer::Reserve(PageSeal& seal) {
  seal.sealed->blocks = PoolSlot(pool_, format_->PageBytes(format_->sealed));
  if (seal.page == 0 && format_->sink_tokens > 0) {
    seal.maybe_sinks = std::make_shared<PoolSlot>(pool_, format_->PageBytes(format_->sinks));
    if (!*seal.maybe_sinks) return false;
  }
  return static_cast<bool>(seal.sealed->blocks);
}

// ---- encode

void PageSealer::EncodeShare(const Team& team, Sequence& sequence) {
  RowScratch scratch(*format_);
  const size_t heads = static_cast<size_t>(format_->kv_heads);
  const auto [first, last] = team.Share(batch_.size() * heads);
  for (size_t item = first; item < last; ++item) {
    PageSeal& seal = batch_[item / heads];
    const int head = static_cast<int>(item % heads);
    Status status = scratch.ok() ? EncodeBlock(sequence, seal, head, scratch) : OutOfScratch(*format_);
    if (status.ok()) continue;
    std::atomic_ref(seal.failed).store(true, std::memory_order_relaxed);
    status_.Record(static_cast<int64_t>(item), std::move(status));
  }
}

Status PageSealer::EncodeBlock(Sequence& sequence, PageSeal& seal, int head, RowScratch& scratch) const {
  KVANT_TRY(LoadRows(*format_, sequence, seal.page, head, scratch));
  BlockContext context = ContextOf(*format_, *seal.sealed, *sequence.FindPage(seal.page), head);
  int32_t positions[kTokensPerPage];
  if (seal.maybe_sinks != nullptr) {
    KeepSinks(BlockOf(format_->open, sequence.OpenBytes(seal.page), head), seal, head);
    ReplaceSinks(scratch.rows(), context, positions);
  }
  TokenClasses classes;
  context.maybe_token_classes = ClassesOf(sequence, seal, classes);
  const Status status = format_->sealed.verbs.encode(*format_->sealed.state, context, scratch.rows(),
                                                     BlockOf(format_->sealed, seal.sealed->blocks.data(), head));
  return status.ok() ? status : AtPage(*format_, seal.page, head, status);
}

const TokenClass* PageSealer::ClassesOf(const Sequence& sequence, const PageSeal& seal, TokenClasses& classes) const {
  const Page* page = sequence.FindPage(seal.page);
  if (page->maybe_classes == nullptr) return nullptr;
  classes = *page->maybe_classes;
  // Nobody reads the sinks' rows of the coded page: they shall take no place of others.
  if (seal.maybe_sinks != nullptr) std::fill_n(classes.begin(), format_->sink_tokens, TokenClass::kOrdinary);
  return classes.data();
}

void PageSealer::KeepSinks(const std::byte* open_block, PageSeal& seal, int head) const {
  std::byte* sink_block = BlockOf(format_->sinks, seal.maybe_sinks->data(), head);
  std::fill_n(sink_block, format_->sinks.block_bytes(), std::byte{0});
  std::vector<F16> row(static_cast<size_t>(format_->dim()));
  for (int t = 0; t < format_->sink_tokens; ++t) {
    format_->open.info->load_row(format_->open.shape(), open_block, t, row.data());
    format_->sinks.info->store_row(format_->sinks.shape(), sink_block, t, row.data());
  }
}

// What stands in the coded page in the place of the sinks should cost the codec nothing: the mean of the other rows;
// before RoPE, where a mean of turned rows is nothing, the next row and its position.
void PageSealer::ReplaceSinks(float* rows, BlockContext& context, int32_t* positions) const {
  const int dim = format_->dim();
  const int num_sinks = format_->sink_tokens;
  if (context.positions != nullptr) {
    std::copy_n(context.positions, kTokensPerPage, positions);
    std::fill_n(positions, num_sinks, positions[num_sinks]);
    for (int t = 0; t < num_sinks; ++t) std::copy_n(rows + num_sinks * dim, dim, rows + t * dim);
    context.positions = positions;
    return;
  }
  for (int c = 0; c < dim; ++c) {
    float sum = 0.0f;
    for (int t = num_sinks; t < kTokensPerPage; ++t) sum += rows[t * dim + c];
    for (int t = 0; t < num_sinks; ++t) rows[t * dim + c] = sum / static_cast<float>(kTokensPerPage - num_sinks);
  }
}

void PageSealer::Commit(Sequence& sequence) {
  for (PageSeal& seal : batch_) {
    if (!seal.failed) sequence.CommitSeal(seal.page, std::move(seal.sealed), std::move(seal.maybe_sinks));
  }
  batch_.clear();
  sequence.RebuildView();
}

}  // namespace kvant
