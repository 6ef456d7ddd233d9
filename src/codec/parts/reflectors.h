// An orthogonal matrix as Householder reflectors in bytes: half the entries of the matrix, and orthogonal to
// float precision however coarsely they are stored.
//
//   Q = H_0 H_1 ... H_{count-1},  H_k = I - 2 v v^T / (v.v),  v = [0 (k times), 1, scale_k * tail_k]
//
// dim - 1 reflectors make any orthogonal matrix; fewer place its first `count` columns and leave the others to
// what they imply.
//
// tail_k are dim-1-k signed bytes. Rounding a tail turns the columns of Q a little (about 1 %) and so mixes
// latent channels slightly, but encoder and reader use the same Q and Q^-1 = Q^T holds exactly: measured, the
// error of codes behind it grows by less than 0.1 %. A matrix stored in bytes is not orthogonal and costs 4 %
// at 4 bits.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/float16.h"
#include "kvant/status.h"

namespace kvant {

/// Reflectors in memory: `count` scales, then the tails one after the other. dim <= kMaxStripDim, count < dim.
struct ReflectorView {
  int dim = 0;
  int count = 0;
  const F16* scales = nullptr;
  const int8_t* tails = nullptr;
};

/// Bytes of the scales and tails together.
constexpr size_t ReflectorBytes(int dim, int count) {
  return static_cast<size_t>(count) * sizeof(F16) + static_cast<size_t>(count * (dim - 1) - count * (count - 1) / 2);
}
inline ReflectorView ViewReflectors(const std::byte* bytes, int dim, int count) {
  return {dim, count, reinterpret_cast<const F16*>(bytes),
          reinterpret_cast<const int8_t*>(bytes + static_cast<size_t>(count) * sizeof(F16))};
}
/// Where tail k starts.
constexpr size_t ReflectorTailOfs(int dim, int k) {
  return static_cast<size_t>(k) * static_cast<size_t>(dim - 1) -
         static_cast<size_t>(k) * static_cast<size_t>(k - 1) / 2;
}

/// Corruption, in the name of `codec`, unless every scale lies in 0..1; those that are written do.
Status CheckReflectors(const char* codec, const ReflectorView& q);

/// Factors an orthogonal matrix [dim, dim] (row-major; overwritten) whose columns are the basis vectors, and
/// writes ReflectorBytes(dim, count). Column j < count of Q is column j of the matrix up to its sign and rounding.
void QuantizeReflectors(int dim, int count, float* matrix, std::byte* bytes);

/// One row [dim] in place: x -> Q^T x (coordinates in the basis) and back. The definition.
void ReflectRow(const ReflectorView& q, float* row);
void ReflectRowBack(const ReflectorView& q, float* row);

/// The same for strips [num_strips][dim][16] (strip.h), in place. Two strips cost little more than one.
struct ReflectorKernels {
  void (*forward)(const ReflectorView& q, int num_strips, float* strips);
  void (*back)(const ReflectorView& q, int num_strips, float* strips);
};

const ReflectorKernels& GetReflectorKernels();

}  // namespace kvant
