#include "base/team.h"

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

namespace kvant {
namespace {

// Spins this often before it sleeps: long enough for a page's worth of imbalance; sleeping gives the core to the member
// that is waited for when the machine is shared.
constexpr int kSpins = 20000;

}  // namespace

void Barrier::Wait() {
  const unsigned generation = generation_.load(std::memory_order_acquire);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) == size_ - 1) {
    arrived_.store(0, std::memory_order_relaxed);
    generation_.store(generation + 1, std::memory_order_release);
    generation_.notify_all();
    return;
  }
  for (int spins = 0; spins < kSpins; ++spins) {
    if (generation_.load(std::memory_order_acquire) != generation) return;
  }
  generation_.wait(generation, std::memory_order_acquire);
}

struct ThreadTeam::Impl {
  explicit Impl(int size) : barrier(size), done(size) {}
  Barrier barrier;
  Barrier done;
  std::mutex mutex;
  std::condition_variable wake;
  unsigned generation = 0;
  bool stop = false;
  const std::function<void(const Team&)>* work = nullptr;
  std::vector<std::thread> threads;
};

ThreadTeam::ThreadTeam(int size) : size_(size < 1 ? 1 : size), impl_(new Impl(size_)) {
  for (int rank = 1; rank < size_; ++rank) {
    impl_->threads.emplace_back([impl = impl_, rank, size = size_] {
      unsigned seen = 0;
      while (true) {
        std::unique_lock lock(impl->mutex);
        impl->wake.wait(lock, [&] { return impl->stop || impl->generation != seen; });
        if (impl->stop) return;
        seen = impl->generation;
        lock.unlock();
        (*impl->work)(Team(rank, size, &impl->barrier));
        impl->done.Wait();
      }
    });
  }
}

ThreadTeam::~ThreadTeam() {
  {
    std::lock_guard lock(impl_->mutex);
    impl_->stop = true;
  }
  impl_->wake.notify_all();
  for (std::thread& thread : impl_->threads) thread.join();
  delete impl_;
}

void ThreadTeam::Run(const std::function<void(const Team&)>& work) {
  if (size_ > 1) {
    std::lock_guard lock(impl_->mutex);
    impl_->work = &work;
    ++impl_->generation;
  }
  impl_->wake.notify_all();
  work(Team(0, size_, &impl_->barrier));
  if (size_ > 1) impl_->done.Wait();
}

}  // namespace kvant
