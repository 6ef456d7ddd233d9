// The randomised Hadamard transform: an orthogonal map that spreads every channel over all channels, without
// data.
//
// Forward: x -> H S x, with S = diag(+-1) fixed (HadamardSign) and H the Walsh-Hadamard matrix / sqrt(n).
// A head size that is no power of two takes two overlapping transforms of p = the largest power of two below
// it:
//   x -> S x; H on channels 0..p-1; S' x; H on channels dim-p..dim-1.
// That measures within 1 % of a random rotation; blocks side by side (96 = 64 + 32) are up to 20 % worse on
// rows whose variance differs between the blocks, and overlapping without S' concentrates what it should
// spread.
#pragma once

#include <cstdint>

namespace kvant {

/// Sign of position `i`: a fixed hash, so that no structured row meets a Walsh function. S' uses positions
/// dim + i.
constexpr float HadamardSign(int i) {
  uint32_t h = (static_cast<uint32_t>(i) + 1) * 0x9E3779B1u;
  h = (h ^ (h >> 16)) * 0x85EBCA6Bu;
  h = (h ^ (h >> 13)) * 0xC2B2AE35u;
  return (h >> 31) != 0 ? -1.0f : 1.0f;
}

/// One row [dim], in place; dim >= 16. The definition: every kernel gives the same bits.
void HadamardRow(int dim, float* row);
void InverseHadamardRow(int dim, float* row);

/// The same for the 16 rows of a strip (strip.h), in place.
struct HadamardKernels {
  void (*forward)(int dim, float* strip);
  void (*inverse)(int dim, float* strip);
  /// Rows [count, dim] one by one, dim a multiple of 16: for less work than a strip, or rows that stand like that.
  void (*forward_rows)(int dim, int count, float* rows);
  void (*inverse_rows)(int dim, int count, float* rows);
};

const HadamardKernels& GetHadamardKernels();

}  // namespace kvant
