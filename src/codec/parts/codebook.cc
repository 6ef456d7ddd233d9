#include "codec/parts/codebook.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

namespace kvant {
namespace {

// ---- integrals of the normal density

double Density(double x) { return std::exp(-0.5 * x * x) / std::sqrt(2.0 * std::numbers::pi); }
double Tail(double x) { return 0.5 * std::erfc(x / std::numbers::sqrt2); }
double Mass(double a, double b) { return Tail(a) - Tail(b); }
double FirstMoment(double a, double b) { return Density(a) - Density(b); }

// Mean square error of 2^(bits-1) magnitudes with borders [n-1] between them: E x^2 - 2 E x v + E v^2, both
// halves.
template <typename Float>
double Distortion(int n, const Float* magnitudes, const Float* borders) {
  double error = 0.5;
  for (int i = 0; i < n; ++i) {
    const double a = i == 0 ? 0.0 : borders[i - 1];
    const double b = i == n - 1 ? std::numeric_limits<double>::infinity() : borders[i];
    const double v = magnitudes[i];
    error += v * v * Mass(a, b) - 2.0 * v * FirstMoment(a, b);
  }
  return 2.0 * error;
}

double UniformDistortion(int n, double step) {
  double magnitudes[128];
  double borders[128];
  for (int i = 0; i < n; ++i) {
    magnitudes[i] = (i + 0.5) * step;
    borders[i] = (i + 1) * step;
  }
  return Distortion(n, magnitudes, borders);
}

// The error falls and then rises with the step: golden section.
double BestUniformStep(int n) {
  double low = 0.5 / n;
  double high = 4.0 / n;
  const double ratio = 1.0 / std::numbers::phi;
  for (int i = 0; i < 60; ++i) {
    const double a = high - ratio * (high - low);
    const double b = low + ratio * (high - low);
    if (UniformDistortion(n, a) < UniformDistortion(n, b)) {
      high = b;
    } else {
      low = a;
    }
  }
  return 0.5 * (low + high);
}

// ---- one book

Codebook MakeUniform(int bits) {
  const int n = 1 << (bits - 1);
  const double step = BestUniformStep(n);
  Codebook book{.bits = bits, .step = static_cast<float>(step), .center = static_cast<float>(n) - 0.5f};
  book.distortion = UniformDistortion(n, step);
  for (int i = 0; bits <= 4 && i < n; ++i) {
    book.magnitudes[i] = (static_cast<float>(i) + 0.5f) * book.step;
    if (i + 1 < n) book.thresholds[i] = static_cast<float>(i + 1) * book.step;
  }
  return book;
}

// Magnitudes become whole steps of at most 127; which largest one fits the others best is tried out.
Codebook RoundToLevels(int bits, const double* magnitudes) {
  constexpr double kCenter = 128.0;
  const int n = 1 << (bits - 1);
  Codebook best{.bits = bits, .center = kCenter};
  for (int largest = 64; largest <= 127; ++largest) {
    Codebook book{.bits = bits, .step = static_cast<float>(magnitudes[n - 1] / largest), .center = kCenter};
    for (int i = 0; i < n; ++i) {
      book.magnitudes[i] = book.step * static_cast<float>(std::nearbyint(magnitudes[i] / book.step));
      if (i > 0) book.thresholds[i - 1] = 0.5f * (book.magnitudes[i - 1] + book.magnitudes[i]);
    }
    book.distortion = Distortion(n, book.magnitudes, book.thresholds);
    if (book.distortion < best.distortion) best = book;
  }
  return best;
}

Codebook MakeLloydMax(int bits) {
  double magnitudes[8];
  double thresholds[8];
  SolveLloydMax(bits, magnitudes, thresholds);
  return RoundToLevels(bits, magnitudes);
}

// ---- a set

void FillLevels(CodebookSet* set) {
  for (int bits = 1; bits <= 4; ++bits) {
    const Codebook& book = set->by_bits[bits];
    for (int code = 0; code < 1 << bits; ++code) {
      const float value =
          book.magnitudes[code >= 1 << (bits - 1) ? code - (1 << (bits - 1)) : (1 << (bits - 1)) - 1 - code];
      const float signed_value = code >= 1 << (bits - 1) ? value : -value;
      set->levels.by_bits[bits][code] = static_cast<uint8_t>(std::nearbyint(book.center + signed_value / book.step));
    }
  }
  set->use_levels = true;
}

template <typename MakeBook>
CodebookSet MakeSet(MakeBook make) {
  CodebookSet set = {};
  for (const int bits : kCodeWidths) {
    if (bits > 0) set.by_bits[bits] = make(bits);
  }
  return set;
}

}  // namespace

double SolveLloydMax(int bits, double* magnitudes, double* thresholds) {
  const int n = 1 << (bits - 1);
  for (int i = 0; i < n; ++i) magnitudes[i] = 3.0 * (i + 0.5) / n;
  // Each round moves a magnitude by a few per cent of its error at 4 bits; 2000 rounds reach double
  // precision.
  for (int round = 0; round < 2000; ++round) {
    for (int i = 0; i + 1 < n; ++i) thresholds[i] = 0.5 * (magnitudes[i] + magnitudes[i + 1]);
    for (int i = 0; i < n; ++i) {
      const double a = i == 0 ? 0.0 : thresholds[i - 1];
      const double b = i == n - 1 ? std::numeric_limits<double>::infinity() : thresholds[i];
      magnitudes[i] = FirstMoment(a, b) / Mass(a, b);
    }
  }
  return Distortion(n, magnitudes, thresholds);
}

const CodebookSet& LloydMaxCodebooks() {
  static const CodebookSet kSet = [] {
    CodebookSet set = MakeSet([](int bits) { return bits <= 4 ? MakeLloydMax(bits) : MakeUniform(bits); });
    FillLevels(&set);
    return set;
  }();
  return kSet;
}

const CodebookSet& UniformCodebooks() {
  static const CodebookSet kSet = MakeSet(MakeUniform);
  return kSet;
}

const CodebookSet& SymmetricCodebooks() {
  static const CodebookSet kSet = MakeSet(
      [](int bits) { return Codebook{.bits = bits, .step = 1.0f, .center = static_cast<float>(1 << (bits - 1))}; });
  return kSet;
}

float CodeValue(const CodebookSet& set, int bits, int code) {
  if (bits == 0) return 0.0f;
  const Codebook& book = set.by_bits[bits];
  const int level = set.use_levels && bits <= 4 ? set.levels.by_bits[bits][code] : code;
  return (static_cast<float>(level) - book.center) * book.step;
}

int NearestCode(const Codebook& book, float value) {
  const int half = 1 << (book.bits - 1);
  const float magnitude = std::abs(value);
  int m = 0;
  if (book.bits <= 4) {
    while (m < half - 1 && magnitude > book.thresholds[m]) ++m;
  } else {
    m = static_cast<int>(std::min(magnitude * (1.0f / book.step), static_cast<float>(half - 1)));
  }
  return value >= 0.0f ? half + m : half - 1 - m;
}

}  // namespace kvant
