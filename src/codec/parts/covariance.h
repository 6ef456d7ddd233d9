// Sums of outer products of rows: what a fitted basis is made from.
#pragma once

#include <cstddef>

namespace kvant {

struct CovarianceKernels {
  /// c[i][j] += sum over rows of row[i] * row[j], for j / 16 >= i / 16; the rest of c [dim, dim] is left
  /// alone. rows [count, dim]; dim a multiple of 16.
  void (*add)(const float* rows, size_t count, int dim, float* c);
};

const CovarianceKernels& GetCovarianceKernels();

/// Copies the upper triangle of c [dim, dim] below the diagonal and multiplies all by `factor`.
void MirrorUpper(int dim, float factor, float* c);

}  // namespace kvant
