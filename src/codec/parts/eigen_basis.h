// From a covariance to a basis and a budget: eigenvectors, and the widths of latent tiles by reverse
// water-filling.
#pragma once

#include <cstdint>
#include <span>

#include "codec/parts/codebook.h"

namespace kvant {

/// Eigenvectors of a symmetric matrix c [dim, dim] as the columns of vectors [dim, dim] (row-major),
/// eigenvalues falling in values [dim]; negative ones from rounding become 0.
void SymmetricEigen(int dim, const float* c, float* vectors, float* values);

/// Most bits that tiles can take together without exceeding `total`, given the widths of kCodeWidths.
int ReachableBits(int num_tiles, int total);

/// Widths bits [variances.size()] that minimise sum variances[i] * distortion(bits[i]) among those whose sum
/// is exactly `total`: dynamic programming, so the optimum also where the steps from 4 to 6 and 8 bits do not
/// fit. REQUIRES: total == ReachableBits(variances.size(), total); at most 64 tiles
void AllocateBits(std::span<const double> variances, const CodebookSet& books, int total, uint8_t* bits);

}  // namespace kvant
