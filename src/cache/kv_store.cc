#include "cache/kv_store.h"

#include <utility>
#include <vector>

#include "base/check.h"
#include "cache/basis.h"
#include "cache/footprint.h"
#include "cache/page_pool.h"
#include "cache/page_sealer.h"
#include "cache/position_mover.h"
#include "cache/row_reader.h"
#include "cache/row_writer.h"
#include "cache/sequence.h"
#include "cache/store_format.h"

namespace kvant {

struct KvStore::Impl {
  Impl(const KvStoreConfig& c, StoreFormat f, PagePool* p, std::shared_ptr<const Basis> b)
      : config(c),
        format(std::move(f)),
        pool(p),
        maybe_calibrated(std::move(b)),
        writer(&format, p),
        sealer(&format, p),
        reader(&format),
        mover(&format, p) {
    for (int i = 0; i < config.num_sequences; ++i) sequences.emplace_back(&format, maybe_calibrated);
  }

  Status CheckSequence(int sequence) const {
    if (sequence >= 0 && sequence < config.num_sequences) return Status::Ok();
    return Status::InvalidArgument(StrFormat("%s: sequence %d does not exist; accepted: 0..%d", format.Where().c_str(),
                                             sequence, config.num_sequences - 1));
  }
  Sequence& At(int sequence) {
    KVANT_DCHECK(sequence >= 0 && sequence < config.num_sequences);
    return sequences[static_cast<size_t>(sequence)];
  }

  const KvStoreConfig config;
  const StoreFormat format;
  PagePool* const pool;
  const std::shared_ptr<const Basis> maybe_calibrated;
  std::vector<Sequence> sequences;
  RowWriter writer;
  PageSealer sealer;
  RowReader reader;
  PositionMover mover;
};

KvStore::KvStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
KvStore::~KvStore() = default;

Result<std::unique_ptr<KvStore>> KvStore::Create(const KvStoreConfig& config, PagePool* pool) {
  Result<StoreFormat> format = StoreFormat::Make(config);
  if (!format.ok()) return format.status();
  Result<std::shared_ptr<const Basis>> basis = CalibratedBasis(*format, config.maybe_bases, pool);
  if (!basis.ok()) return basis.status();
  return std::unique_ptr<KvStore>(
      new KvStore(std::make_unique<Impl>(config, std::move(*format), pool, std::move(*basis))));
}

const KvStoreConfig& KvStore::config() const { return impl_->config; }

// ---- by a team

Status KvStore::Write(const Team& team, int sequence, std::span<const int64_t> rows, const RowSource& source,
                      std::span<const int32_t> positions) {
  KVANT_DCHECK(positions.empty() || positions.size() == rows.size());
  KVANT_TRY(impl_->CheckSequence(sequence));
  return impl_->writer.Write(team, impl_->At(sequence), rows, source, positions);
}

Status KvStore::MovePositions(const Team& team, int sequence, std::span<const int32_t> shift) {
  KVANT_DCHECK(keeps_positions());
  KVANT_TRY(impl_->CheckSequence(sequence));
  return impl_->mover.Move(team, impl_->At(sequence), shift);
}

Status KvStore::Seal(const Team& team, int sequence) {
  KVANT_TRY(impl_->CheckSequence(sequence));
  return impl_->sealer.Seal(team, impl_->At(sequence));
}

Status KvStore::Read(const Team& team, int sequence, int64_t first, int64_t count, const RowTarget& target) const {
  KVANT_TRY(impl_->CheckSequence(sequence));
  return impl_->reader.Read(team, impl_->At(sequence), first, count, target);
}

// ---- by one thread

std::span<const PageRun> KvStore::View(int sequence) const { return impl_->At(sequence).View(); }

bool KvStore::keeps_positions() const { return impl_->format.keeps_positions(); }

int32_t KvStore::Position(int sequence, int64_t row) const {
  const Page* page = impl_->At(sequence).FindPage(PageOfRow(row));
  return page == nullptr ? 0 : page->maybe_positions()[row % kTokensPerPage];
}

int64_t KvStore::num_rows(int sequence) const { return impl_->At(sequence).num_rows(); }

Status KvStore::Fork(int from, int to) {
  KVANT_TRY(impl_->CheckSequence(from));
  KVANT_TRY(impl_->CheckSequence(to));
  if (from == to) return Status::Ok();
  Result<Sequence> copy = impl_->At(from).Fork(impl_->pool);
  if (!copy.ok()) return copy.status();
  impl_->At(to) = std::move(*copy);
  return Status::Ok();
}

Status KvStore::Truncate(int sequence, int64_t num_rows) {
  KVANT_TRY(impl_->CheckSequence(sequence));
  if (num_rows < 0) {
    return Status::InvalidArgument(
        StrFormat("%s: cannot truncate to %lld rows", impl_->format.Where().c_str(), static_cast<long long>(num_rows)));
  }
  impl_->At(sequence).Truncate(num_rows);
  return Status::Ok();
}

void KvStore::Clear(int sequence) { impl_->At(sequence) = Sequence(&impl_->format, impl_->maybe_calibrated); }

double KvStore::seal_seconds() const { return impl_->sealer.seconds(); }

Footprint KvStore::footprint() const { return MeasureFootprint(impl_->format, impl_->sequences); }

}  // namespace kvant
