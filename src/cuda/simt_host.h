// A thread block on the host, for tests: the instructions that kernels take from their template argument W, executed by
// one fiber per lane. A machine without a GPU thus checks layouts, masks, barriers and asynchronous copies.
//
// Asynchronous copies happen when they are waited for, not before, so that a missing wait gives wrong results.
#pragma once

#include <ucontext.h>

#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/float16.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

namespace kvant::cuda {

constexpr int kMostWords = 8;
/// What the lanes of a warp show each other.
using Board = uint32_t[32][kMostWords];

/// Runs the threads of one block. Not reentrant, one at a time in a process.
class HostBlock {
 public:
  /// Calls work(thread) for threads 0..threads-1, a multiple of 32.
  static void Run(int threads, const std::function<void(int)>& work) {
    HostBlock block(threads, work);
    block_ = &block;
    block.Schedule();
    block_ = nullptr;
  }

  static HostBlock& current() { return *block_; }
  int thread() const { return running_; }

  /// Waits until all threads of the warp (of the block) are here.
  void SyncWarp() { Wait(&warps_[static_cast<size_t>(running_ / 32)].barrier, 32); }
  void SyncBlock() { Wait(&barrier_, static_cast<int>(fibers_.size())); }

  /// Every lane gives `words`, every lane sees those of all: [32][words].
  template <int kWords>
  const Board& Exchange(const uint32_t (&mine)[kWords]) {
    Warp& warp = warps_[static_cast<size_t>(running_ / 32)];
    Fiber& fiber = fibers_[static_cast<size_t>(running_)];
    // Two, so that a fast lane does not overwrite what a slow one still reads.
    Board& board = warp.board[fiber.exchanges++ % 2];
    std::memcpy(board[running_ % 32], mine, sizeof(mine));
    SyncWarp();
    return board;
  }

  void Copy16(void* to, const void* from) { self().open.push_back({to, from}); }
  void Commit() {
    self().groups.push_back(std::move(self().open));
    self().open.clear();
  }
  void WaitCopies(size_t newest_left) {
    while (self().groups.size() > newest_left) {
      for (const Copy& c : self().groups.front()) std::memcpy(c.to, c.from, 16);
      self().groups.erase(self().groups.begin());
    }
  }

 private:
  struct Barrier {
    int arrived = 0;
    unsigned generation = 0;
  };
  struct Copy {
    void* to;
    const void* from;
  };
  static constexpr size_t kStackBytes = 256 * 1024;
  struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack = std::make_unique_for_overwrite<char[]>(kStackBytes);  // most of it is never touched
    bool done = false;
    unsigned exchanges = 0;
    std::vector<Copy> open = {};
    std::vector<std::vector<Copy>> groups = {};
    void* fake_stack = nullptr;
  };
  struct Warp {
    Barrier barrier;
    Board board[2];
  };

  HostBlock(int threads, const std::function<void(int)>& work)
      : work_(work), fibers_(static_cast<size_t>(threads)), warps_(static_cast<size_t>(threads / 32)) {
    for (Fiber& f : fibers_) {
      getcontext(&f.context);
      f.context.uc_stack.ss_sp = f.stack.get();
      f.context.uc_stack.ss_size = kStackBytes;
      f.context.uc_link = &scheduler_;
      makecontext(&f.context, &HostBlock::Enter, 0);
    }
  }

  static void Enter() {
    HostBlock& b = *block_;
    b.ArriveInFiber();
    b.work_(b.running_);
    b.self().done = true;
    b.Leave(true);
  }

  void Schedule() {
    for (size_t left = fibers_.size(); left > 0;) {
      for (size_t i = 0; i < fibers_.size(); ++i) {
        if (fibers_[i].done) continue;
        running_ = static_cast<int>(i);
        SwitchTo(&fibers_[i]);
        if (fibers_[i].done) --left;
      }
    }
  }

  void Wait(Barrier* barrier, int size) {
    if (++barrier->arrived == size) {
      barrier->arrived = 0;
      ++barrier->generation;
      return;
    }
    const unsigned generation = barrier->generation;
    while (barrier->generation == generation) Leave(false);
  }

  Fiber& self() { return fibers_[static_cast<size_t>(running_)]; }

  // The address sanitizer has to know which stack is in use.
#ifdef __SANITIZE_ADDRESS__
  void SwitchTo(Fiber* f) {
    __sanitizer_start_switch_fiber(&scheduler_fake_, f->stack.get(), kStackBytes);
    swapcontext(&scheduler_, &f->context);
    __sanitizer_finish_switch_fiber(scheduler_fake_, nullptr, nullptr);
  }
  void ArriveInFiber() { __sanitizer_finish_switch_fiber(nullptr, &scheduler_stack_, &scheduler_bytes_); }
  void Leave(bool for_good) {
    Fiber& f = self();
    __sanitizer_start_switch_fiber(for_good ? nullptr : &f.fake_stack, scheduler_stack_, scheduler_bytes_);
    swapcontext(&f.context, &scheduler_);
    __sanitizer_finish_switch_fiber(f.fake_stack, nullptr, nullptr);
  }
  void* scheduler_fake_ = nullptr;
  const void* scheduler_stack_ = nullptr;
  size_t scheduler_bytes_ = 0;
#else
  void SwitchTo(Fiber* f) { swapcontext(&scheduler_, &f->context); }
  void ArriveInFiber() {}
  void Leave(bool) { swapcontext(&self().context, &scheduler_); }
#endif

  static inline HostBlock* block_ = nullptr;
  const std::function<void(int)>& work_;
  ucontext_t scheduler_;
  std::vector<Fiber> fibers_;
  std::vector<Warp> warps_;
  Barrier barrier_;
  int running_ = 0;
};

/// The instructions, as simt.cuh has them.
struct HostWarp {
  static float ToFloat(uint32_t halves, int half) {
    return kvant::ToFloat(F16{static_cast<uint16_t>(half == 0 ? halves : halves >> 16)});
  }
  static uint32_t Pack(float low, float high) {
    return static_cast<uint32_t>(ToF16(low).bits) | static_cast<uint32_t>(ToF16(high).bits) << 16;
  }
  static void Unpack(uint32_t halves, float* low, float* high) {
    *low = ToFloat(halves, 0);
    *high = ToFloat(halves, 1);
  }
  static float HalfToFloat(uint16_t half) { return ToFloat(half, 0); }
  static uint16_t FloatToHalf(float x) { return ToF16(x).bits; }
  static uint32_t Multiply(uint32_t a, uint32_t b) {
    return Pack(ToFloat(a, 0) * ToFloat(b, 0), ToFloat(a, 1) * ToFloat(b, 1));
  }
  static uint32_t Add(uint32_t a, uint32_t b) {
    return Pack(ToFloat(a, 0) + ToFloat(b, 0), ToFloat(a, 1) + ToFloat(b, 1));
  }
  static uint32_t Subtract(uint32_t a, uint32_t b) { return Add(a, b ^ 0x80008000u); }
  static uint32_t MultiplyAdd(uint32_t a, uint32_t b, uint32_t c) {
    return Pack(ToFloat(a, 0) * ToFloat(b, 0) + ToFloat(c, 0), ToFloat(a, 1) * ToFloat(b, 1) + ToFloat(c, 1));
  }
  static uint32_t AtLeast(uint32_t x, uint32_t y) {
    return (ToFloat(x, 0) >= ToFloat(y, 0) ? 0xFFFFu : 0u) | (ToFloat(x, 1) >= ToFloat(y, 1) ? 0xFFFF0000u : 0u);
  }
  static uint32_t MaskOr(uint32_t x, uint32_t mask, uint32_t bits) { return (x & mask) | bits; }
  static uint32_t Byte(uint32_t x, int index) { return x >> (8 * index) & 0xFF; }
  static uint32_t Bytes(uint32_t low, uint32_t high, int i0, int i1, int i2, int i3) {
    const auto byte = [&](int i) { return Byte(i < 4 ? low : high, i % 4); };
    return byte(i0) | byte(i1) << 8 | byte(i2) << 16 | byte(i3) << 24;
  }
  static float AsFloat(int32_t bits) { return std::bit_cast<float>(bits); }
  static uint32_t AsBits(float x) { return std::bit_cast<uint32_t>(x); }
  static uint32_t Select(uint32_t x, uint32_t selector) {
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i) {
      const uint32_t byte = selector >> (4 * i) & 7;
      out |= (byte < 4 ? x >> (8 * byte) & 0xFF : 0) << (8 * i);
    }
    return out;
  }
  static float Max(float a, float b) { return a > b ? a : b; }
  static float Saturate(float x) { return x > 1.0f ? 1.0f : x > 0.0f ? x : 0.0f; }
  static float Round(float x) { return std::nearbyint(x); }
  static float Sqrt(float x) { return std::sqrt(x); }
  static float Reciprocal(float x) { return 1.0f / x; }
  static float Exp2(float x) { return std::exp2(x); }

  using Column = const std::byte*;
  static Column ColumnOf(const std::byte* table, int lane) { return table + lane * 4; }
  static uint32_t Lookup(Column column, uint32_t index, uint32_t unit) {
    uint32_t y;
    std::memcpy(&y, column + index * unit, 4);
    return y;
  }

  static int Lane() { return HostBlock::current().thread() % 32; }
  static void Sync() { HostBlock::current().SyncWarp(); }
  static void BlockSync() { HostBlock::current().SyncBlock(); }
  static uint32_t Shuffle(uint32_t x, int lane) {
    const uint32_t mine[1] = {x};
    return HostBlock::current().Exchange(mine)[lane][0];
  }
  static uint32_t ShuffleXor(uint32_t x, int mask) { return Shuffle(x, Lane() ^ mask); }
  static float Shuffle(float x, int lane) { return std::bit_cast<float>(Shuffle(std::bit_cast<uint32_t>(x), lane)); }
  static float ShuffleXor(float x, int mask) { return Shuffle(x, Lane() ^ mask); }
  static uint32_t Sum(uint32_t x) {
    const uint32_t mine[1] = {x};
    const Board& all = HostBlock::current().Exchange(mine);
    uint32_t sum = 0;
    for (int l = 0; l < 32; ++l) sum += all[l][0];
    return sum;
  }
  static uint32_t Ballot(bool x) { return Sum(x ? 1u << Lane() : 0u); }
  static int CountBits(uint32_t x) { return std::popcount(x); }
  static bool Any(bool x) { return Ballot(x) != 0; }
  static uint32_t Transpose(uint32_t halves) {
    const uint32_t mine[1] = {halves};
    const Board& all = HostBlock::current().Exchange(mine);
    const int row = Lane() / 4;
    const auto at = [&](int r, int c) { return all[r * 4 + c / 2][0] >> (c % 2 * 16) & 0xFFFFu; };
    return at(Lane() % 4 * 2, row) | at(Lane() % 4 * 2 + 1, row) << 16;
  }
  /// c += a x b, m16n8k16.
  static void Product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const Board& all = HostBlock::current().Exchange(mine);
    for (int i = 0; i < 4; ++i) {
      const int row = Lane() / 4 + i / 2 * 8;
      const int column = Lane() % 4 * 2 + i % 2;
      float sum = c[i];
      for (int k = 0; k < 16; ++k) {
        const uint32_t x = all[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2];
        const uint32_t y = all[column * 4 + k % 8 / 2][4 + k / 8];
        sum += ToFloat(x, k % 2) * ToFloat(y, k % 2);
      }
      c[i] = sum;
    }
  }
  /// c += popcount(a & b), m16n8k256 of single bits.
  static void SignProduct(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t mine[6] = {a[0], a[1], a[2], a[3], b0, b1};
    const Board& all = HostBlock::current().Exchange(mine);
    for (int i = 0; i < 4; ++i) {
      const int row = Lane() / 4 + i / 2 * 8;
      const int column = Lane() % 4 * 2 + i % 2;
      for (int k = 0; k < 8; ++k) {  // words of 32 bits
        const uint32_t x = all[row % 8 * 4 + k % 4][row / 8 + k / 4 * 2];
        const uint32_t y = all[column * 4 + k % 4][4 + k / 4];
        c[i] += std::popcount(x & y);
      }
    }
  }
  static uint32_t TakeTicket(uint32_t* count) { return (*count)++; }
  static void Fence() {}
  template <class T>
  static T LoadFresh(const T* from) {
    return *from;
  }
  template <class T>
  static T LoadConstant(const T* from) {
    return *from;
  }
  static void LaunchNext() {}
  static void WaitForPrevious() {}
  static void CopyAsync16(void* to, const void* from) { HostBlock::current().Copy16(to, from); }
  static void CommitCopies() { HostBlock::current().Commit(); }
  template <int kNewestLeft>
  static void WaitCopies() {
    HostBlock::current().WaitCopies(kNewestLeft);
  }
};

}  // namespace kvant::cuda
