// Compiled without contraction of a * b + c (see CMakeLists.txt): a fused multiply-add rounds differently.
#include "codec/parts/sketch.h"

#include <cmath>
#include <map>
#include <mutex>
#include <tuple>
#include <vector>

#include "base/check.h"
#include "codec/parts/split_mix.h"

namespace kvant {
namespace {

/// ln(x) for x > 0, from 2 atanh((m - 1) / (m + 1)) with the mantissa m in [sqrt(1/2), sqrt(2)): eleven terms
/// leave less than 1e-17. std::log differs between libraries in its last bit.
double Log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);
  if (m < 0.70710678118654752) {
    m *= 2.0;
    --exponent;
  }
  const double z = (m - 1.0) / (m + 1.0);
  double sum = 0.0;
  for (int k = 21; k >= 1; k -= 2) sum = sum * (z * z) + 1.0 / k;
  return exponent * 0.69314718055994531 + 2.0 * z * sum;
}

std::vector<double> DrawNormals(size_t count, uint64_t seed) {
  SplitMix64 random(seed);
  std::vector<double> normals;
  normals.reserve(count + 1);
  while (normals.size() < count) {
    const double u = random.Symmetric();
    const double v = random.Symmetric();
    const double s = u * u + v * v;
    if (s <= 0.0 || s >= 1.0) continue;
    const double f = std::sqrt(-2.0 * Log(s) / s);
    normals.push_back(u * f);
    normals.push_back(v * f);
  }
  return normals;
}

double Dot(const double* a, const double* b, int n) {
  double sum = 0.0;
  for (int i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

/// Makes rows [rows, dim] orthogonal, rows <= dim, each of length sqrt(dim).
void Orthogonalise(double* rows, int num_rows, int dim) {
  const double length = std::sqrt(static_cast<double>(dim));
  for (int r = 0; r < num_rows; ++r) {
    double* row = rows + r * dim;
    for (int p = 0; p < r; ++p) {
      const double* done = rows + p * dim;
      const double share = Dot(row, done, dim) / dim;
      for (int i = 0; i < dim; ++i) row[i] -= share * done[i];
    }
    const double scale = length / std::sqrt(Dot(row, row, dim));
    for (int i = 0; i < dim; ++i) row[i] *= scale;
  }
}

}  // namespace

Sketch MakeSketch(int dim, int rows, uint64_t seed, SketchKind kind) {
  KVANT_CHECK(rows > 0 && dim > 0 && dim <= 256);
  const size_t count = static_cast<size_t>(dim) * static_cast<size_t>(rows);
  std::vector<double> values = DrawNormals(count, seed);
  for (int first = 0; kind == SketchKind::kOrthogonal && first < rows; first += dim) {
    Orthogonalise(values.data() + first * dim, std::min(dim, rows - first), dim);
  }
  Sketch s{.dim = dim, .rows = rows, .by_row = AlignedBuffer<float>(count), .by_channel = AlignedBuffer<float>(count)};
  for (size_t i = 0; i < count; ++i) {
    const size_t r = i / static_cast<size_t>(dim);
    const size_t c = i % static_cast<size_t>(dim);
    s.by_row[i] = s.by_channel[c * static_cast<size_t>(rows) + r] = static_cast<float>(values[i]);
  }
  return s;
}

std::shared_ptr<const Sketch> SharedSketch(int dim, int rows, SketchKind kind, uint64_t seed) {
  using Key = std::tuple<int, int, SketchKind, uint64_t>;
  static std::mutex mutex;
  static auto& made = *new std::map<Key, std::weak_ptr<const Sketch>>;  // lives as long as the program
  const std::lock_guard<std::mutex> lock(mutex);
  std::weak_ptr<const Sketch>& slot = made[{dim, rows, kind, seed}];
  std::shared_ptr<const Sketch> sketch = slot.lock();
  if (sketch == nullptr) slot = sketch = std::make_shared<const Sketch>(MakeSketch(dim, rows, seed, kind));
  return sketch;
}

}  // namespace kvant
