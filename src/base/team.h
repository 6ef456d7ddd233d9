// A team of threads that run the same function at the same time, each with its rank.
//
// The library owns no threads while it works for a host: ggml's worker threads call us as a team.
// Programs without a host use ThreadTeam.
#pragma once

#include <atomic>
#include <cstddef>
#include <functional>
#include <utility>

namespace kvant {

/// Spinning barrier for `size` threads. Reusable; all threads must call Wait() equally often.
class Barrier {
 public:
  explicit Barrier(int size) : size_(size) {}
  void Wait();

 private:
  const int size_;
  std::atomic<int> arrived_{0};
  std::atomic<unsigned> generation_{0};
};

/// One member's view of its team.
class Team {
 public:
  /// A team of one.
  Team() = default;
  /// `barrier` is shared by all members and outlives them.
  Team(int rank, int size, Barrier* barrier) : rank_(rank), size_(size), barrier_(barrier) {}

  int rank() const { return rank_; }
  int size() const { return size_; }
  bool leader() const { return rank_ == 0; }
  /// Waits until every member is here; what was written before is visible to all after.
  void Sync() const {
    if (size_ > 1) barrier_->Wait();
  }
  /// This member's part [first, last) of `count` equal items.
  std::pair<size_t, size_t> Share(size_t count) const {
    return {count * static_cast<size_t>(rank_) / static_cast<size_t>(size_),
            count * static_cast<size_t>(rank_ + 1) / static_cast<size_t>(size_)};
  }

 private:
  int rank_ = 0;
  int size_ = 1;
  Barrier* barrier_ = nullptr;
};

/// Threads for programs without a host: Run() calls `work` once per member and returns when all are done.
class ThreadTeam {
 public:
  explicit ThreadTeam(int size);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;
  int size() const { return size_; }
  void Run(const std::function<void(const Team&)>& work);

 private:
  struct Impl;
  int size_;
  Impl* impl_;
};

}  // namespace kvant
