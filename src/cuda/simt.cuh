// The instructions that kernels take from their template argument W. simt_host.h has the same for tests.
#pragma once

#include <cuda_fp16.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "base/host_device.h"

namespace kvant::cuda {

struct CudaWarp {
  // ---- halves, in pairs

  static __device__ __half2 AsHalf2(uint32_t x) { return *reinterpret_cast<const __half2*>(&x); }
  static __device__ uint32_t AsWord(__half2 x) { return *reinterpret_cast<const uint32_t*>(&x); }
  static __device__ uint32_t Pack(float low, float high) { return AsWord(__floats2half2_rn(low, high)); }
  static __device__ void Unpack(uint32_t halves, float* low, float* high) {
    const float2 f = __half22float2(AsHalf2(halves));
    *low = f.x;
    *high = f.y;
  }
  static __device__ float HalfToFloat(uint16_t half) { return __half2float(__ushort_as_half(half)); }
  static __device__ uint16_t FloatToHalf(float x) { return __half_as_ushort(__float2half_rn(x)); }
  static __device__ uint32_t Multiply(uint32_t a, uint32_t b) { return AsWord(__hmul2(AsHalf2(a), AsHalf2(b))); }
  static __device__ uint32_t Add(uint32_t a, uint32_t b) { return AsWord(__hadd2(AsHalf2(a), AsHalf2(b))); }
  static __device__ uint32_t Subtract(uint32_t a, uint32_t b) { return AsWord(__hsub2(AsHalf2(a), AsHalf2(b))); }
  /// a * b + c, rounded once.
  static __device__ uint32_t MultiplyAdd(uint32_t a, uint32_t b, uint32_t c) {
    return AsWord(__hfma2(AsHalf2(a), AsHalf2(b), AsHalf2(c)));
  }
  /// All bits of the halves of x that are not less than those of y.
  static __device__ uint32_t AtLeast(uint32_t x, uint32_t y) { return __hge2_mask(AsHalf2(x), AsHalf2(y)); }
  /// (x & mask) | bits, in one instruction: a compiler that sees two constants makes two.
  static __device__ uint32_t MaskOr(uint32_t x, uint32_t mask, uint32_t bits) {
    uint32_t y;
    asm("lop3.b32 %0, %1, %2, %3, 0xEA;" : "=r"(y) : "r"(x), "r"(mask), "r"(bits));
    return y;
  }
  static __device__ uint32_t Byte(uint32_t x, int index) {
    return __byte_perm(x, 0, 0x4440 + static_cast<uint32_t>(index));
  }
  /// Bytes of two words, 0..3 of `low` and 4..7 of `high`, the first one lowest.
  static __device__ uint32_t Bytes(uint32_t low, uint32_t high, int i0, int i1, int i2, int i3) {
    return __byte_perm(low, high, static_cast<uint32_t>(i0 | i1 << 4 | i2 << 8 | i3 << 12));
  }
  static __device__ float AsFloat(int32_t bits) { return __int_as_float(bits); }
  static __device__ uint32_t AsBits(float x) { return __float_as_uint(x); }
  /// Bytes of x by nibbles of the selector; 4 to 7 are zeros.
  static __device__ uint32_t Select(uint32_t x, uint32_t selector) { return __byte_perm(x, 0, selector); }
  static __device__ float Max(float a, float b) { return fmaxf(a, b); }
  /// To [0, 1].
  static __device__ float Saturate(float x) { return __saturatef(x); }
  static __device__ float Round(float x) { return rintf(x); }
  static __device__ float Sqrt(float x) { return sqrtf(x); }
  /// Within an ulp; of infinity 0.
  static __device__ float Reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  static __device__ float Exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }

  // ---- tables in shared memory: words, a column per lane, rows of 128 bytes

  using Column = uint32_t;  ///< address in shared memory
  static __device__ Column ColumnOf(const std::byte* table, int lane) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(table)) + static_cast<uint32_t>(lane) * 4;
  }
  /// The word at `index` * `unit` bytes of a column, in two instructions.
  static __device__ uint32_t Lookup(Column column, uint32_t index, uint32_t unit) {
    uint32_t y;
    asm("ld.shared.u32 %0, [%1];" : "=r"(y) : "r"(column + index * unit));
    return y;
  }

  // ---- the warp

  static __device__ void Sync() { __syncwarp(); }
  static __device__ void BlockSync() { __syncthreads(); }
  static __device__ float ShuffleXor(float x, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, x, mask); }
  /// What `lane` has.
  static __device__ float Shuffle(float x, int lane) { return __shfl_sync(0xFFFFFFFFu, x, lane); }
  static __device__ uint32_t ShuffleXor(uint32_t x, int mask) { return __shfl_xor_sync(0xFFFFFFFFu, x, mask); }
  static __device__ uint32_t Shuffle(uint32_t x, int lane) { return __shfl_sync(0xFFFFFFFFu, x, lane); }
  /// Over all lanes.
  static __device__ uint32_t Sum(uint32_t x) { return __reduce_add_sync(0xFFFFFFFFu, x); }
  /// Bit l: what lane l has.
  static __device__ uint32_t Ballot(bool x) { return __ballot_sync(0xFFFFFFFFu, x); }
  static __device__ int CountBits(uint32_t x) { return __popc(x); }
  static __device__ bool Any(bool x) { return __any_sync(0xFFFFFFFFu, x) != 0; }
  /// An 8 x 8 matrix of halves, a row per four lanes.
  static __device__ uint32_t Transpose(uint32_t halves) {
    uint32_t y;
    asm("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(y) : "r"(halves));
    return y;
  }
  /// c += a x b.
  static __device__ void Product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }

  /// c += popcount(a & b) of single bits, 16 x 256 times 256 x 8.
  static __device__ void SignProduct(int32_t (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    asm("mma.sync.aligned.m16n8k256.row.col.s32.b1.b1.s32.and.popc {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
        "{%0,%1,%2,%3};"
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }

  // ---- the launches of a step, where the next may start before the previous has ended (sm_90)

  /// The next launch may start; what it needs of this one it has to wait for.
  static __device__ void LaunchNext() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
  }
  /// Until the previous launch has ended and its writes are visible.
  static __device__ void WaitForPrevious() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
  }

  // ---- blocks of one launch that work on one result

  /// Makes this block's writes visible to the whole device, in one of its threads after a BlockSync; counts up and gives the
  /// count before.
  static __device__ uint32_t TakeTicket(uint32_t* count) {
    __threadfence();
    return atomicAdd(count, 1u);
  }
  /// What other blocks wrote before they took a ticket may be read after this, with LoadFresh.
  static __device__ void Fence() { __threadfence(); }
  template <class T>
  static __device__ T LoadFresh(const T* from) {
    return LoadBy(from, [](const auto* part) { return __ldcg(part); });
  }

  /// What nothing writes while the kernel runs: such loads need not wait for stores before them.
  template <class T>
  static __device__ T LoadConstant(const T* from) {
    return LoadBy(from, [](const auto* part) { return __ldg(part); });
  }

  // ---- asynchronous copies to shared memory, past the first-level cache

  static __device__ void CopyAsync16(void* to, const void* from) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
  }
  static __device__ void CommitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
  template <int kNewestLeft>
  static __device__ void WaitCopies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kNewestLeft) : "memory");
  }

 private:
  /// In parts of up to 16 bytes.
  template <class T, class Load>
  static __device__ T LoadBy(const T* from, Load load) {
    using Part = std::conditional_t<sizeof(T) % 16 == 0, uint4, std::conditional_t<sizeof(T) == 8, uint2, uint32_t>>;
    constexpr int kParts = sizeof(T) / sizeof(Part);
    static_assert(kParts * sizeof(Part) == sizeof(T));
    Part parts[kParts];
    KVANT_UNROLL
    for (int i = 0; i < kParts; ++i) parts[i] = load(reinterpret_cast<const Part*>(from) + i);
    return *reinterpret_cast<const T*>(parts);
  }
};

}  // namespace kvant::cuda
