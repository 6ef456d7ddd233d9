// One Status that all members of a team agree on.
#pragma once

#include <cstdint>
#include <mutex>
#include <utility>

#include "base/team.h"
#include "kvant/status.h"

namespace kvant {

/// Members record errors while they work; Agree() tells all of them the same. Of several errors the one with
/// the lowest `order` stays, so that the message does not depend on timing.
class TeamStatus {
 public:
  /// By the leader, between two barriers.
  void Reset() {
    status_ = Status::Ok();
    order_ = INT64_MAX;
  }

  void Record(int64_t order, Status status) {
    if (status.ok()) return;
    const std::lock_guard lock(mutex_);
    if (order >= order_) return;
    order_ = order;
    status_ = std::move(status);
  }

  /// A barrier; true on every member when nothing was recorded before. A member that is quick to record the
  /// next error does not change the answer of a slow one.
  bool Agree(const Team& team) {
    team.Sync();
    if (team.leader()) agreed_ = status_.ok();
    team.Sync();
    return agreed_;
  }

  /// After a barrier that follows the last Record.
  const Status& Get() const { return status_; }

 private:
  std::mutex mutex_;
  int64_t order_ = INT64_MAX;
  Status status_;
  bool agreed_ = true;
};

}  // namespace kvant
