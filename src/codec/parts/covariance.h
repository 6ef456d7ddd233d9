// Sums of outer products of rows: what a fitted basis is made from.
#pragma once

#include <cstddef>
#include <vector>

#include "kvant/status.h"

namespace kvant {

struct CovarianceKernels {
  /// c[i][j] += sum over rows of row[i] * row[j], for j / 16 >= i / 16; the rest of c [dim, dim] is left
  /// alone. rows [count, dim]; dim a multiple of 16.
  void (*add)(const float* rows, size_t count, int dim, float* c);
};

const CovarianceKernels& GetCovarianceKernels();

/// Copies the upper triangle of c [dim, dim] below the diagonal and multiplies all by `factor`.
void MirrorUpper(int dim, float factor, float* c);

/// Second moments [dim, dim] of rows [count, dim]: their outer products, averaged. dim a multiple of 16, count above 0.
/// InvalidArgument, in the name of `codec`: rows so large that a sum is not finite.
Result<std::vector<float>> SecondMoments(const char* codec, const float* rows, size_t count, int dim);

/// Subtracts from each page of 64 rows its mean per channel; rows [count, dim], the last page may be shorter.
void CentrePages(size_t count, int dim, float* rows);

}  // namespace kvant
