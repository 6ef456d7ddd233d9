// Eigen is used here and nowhere else in the library: a symmetric eigensolver of our own would be a few
// hundred lines that are hard to get right for nearly equal eigenvalues, and it runs once per head and
// thousands of tokens.
#include "codec/parts/eigen_basis.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <limits>
#include <vector>

#include "base/check.h"

namespace kvant {
namespace {

using Matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
constexpr double kUnreachable = std::numeric_limits<double>::infinity();

// Least cost of the first tiles for every sum of widths, tile by tile, with the width that the last tile
// takes.
class BitTable {
 public:
  BitTable(std::span<const double> variances, const CodebookSet& books, int total)
      : columns_(static_cast<size_t>(total) + 1), width_(variances.size() * columns_, 0) {
    cost_.assign(columns_, kUnreachable);
    cost_[0] = 0.0;
    for (size_t tile = 0; tile < variances.size(); ++tile) AddTile(tile, variances[tile], books);
  }
  bool Reaches(int total) const { return cost_[static_cast<size_t>(total)] != kUnreachable; }
  int Width(size_t tile, int total) const { return width_[tile * columns_ + static_cast<size_t>(total)]; }

 private:
  void AddTile(size_t tile, double variance, const CodebookSet& books) {
    std::vector<double> next(columns_, kUnreachable);
    for (size_t sum = 0; sum < columns_; ++sum) {
      for (const int bits : kCodeWidths) {
        if (sum < static_cast<size_t>(bits)) break;
        const double cost = cost_[sum - static_cast<size_t>(bits)] + variance * books.by_bits[bits].distortion;
        if (cost >= next[sum]) continue;
        next[sum] = cost;
        width_[tile * columns_ + sum] = static_cast<uint8_t>(bits);
      }
    }
    cost_ = std::move(next);
  }

  size_t columns_;
  std::vector<double> cost_;    // [total + 1] after the tiles so far
  std::vector<uint8_t> width_;  // [tiles][total + 1]
};

}  // namespace

void SymmetricEigen(int dim, const float* c, float* vectors, float* values) {
  const Eigen::SelfAdjointEigenSolver<Matrix> solver(Eigen::Map<const Matrix>(c, dim, dim));
  // Eigen sorts them rising.
  Eigen::Map<Matrix>(vectors, dim, dim) = solver.eigenvectors().rowwise().reverse();
  Eigen::Map<Eigen::VectorXf>(values, dim) = solver.eigenvalues().reverse().cwiseMax(0.0f);
}

int ReachableBits(int num_tiles, int total) {
  const std::vector<double> equal(static_cast<size_t>(num_tiles), 1.0);
  const int most = std::min(total, num_tiles * kMaxCodeWidth);
  const BitTable table(equal, LloydMaxCodebooks(), most);
  int reachable = most;
  while (!table.Reaches(reachable)) --reachable;  // 0 is always reached
  return reachable;
}

void AllocateBits(std::span<const double> variances, const CodebookSet& books, int total, uint8_t* bits) {
  const BitTable table(variances, books, total);
  KVANT_DCHECK(table.Reaches(total));
  int left = total;
  for (size_t tile = variances.size(); tile-- > 0;) {
    bits[tile] = static_cast<uint8_t>(table.Width(tile, left));
    left -= bits[tile];
  }
}

}  // namespace kvant
