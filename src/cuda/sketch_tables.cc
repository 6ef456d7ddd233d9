#include "cuda/sketch_tables.h"

#include <algorithm>
#include <cmath>

#include "base/float16.h"
#include "codec/parts/sketch.h"
#include "cuda/sketch_order.h"

namespace kvant::cuda {
namespace {

void FillTiles(const Sketch& s, const SketchTableLayout& layout, std::byte* tables) {
  for (int i = 0; i < kSketchRows; ++i) {
    const size_t tile = static_cast<size_t>(i / 8 * layout.tile_bytes());
    auto* high = reinterpret_cast<F16*>(tables + tile);
    auto* low = reinterpret_cast<F16*>(tables + static_cast<size_t>(layout.low_byte_ofs()) + tile);
    for (int c = 0; c < s.dim; ++c) {
      const F16 rounded = ToF16(s.row(i)[c]);
      high[QueryHalf(i % 8, c)] = rounded;
      low[QueryHalf(i % 8, c)] = ToF16(s.row(i)[c] - ToFloat(rounded));
    }
  }
}

// One column as integers: digits, and how sums of them become floats.
void FillColumn(const Sketch& s, const SketchTableLayout& layout, int channel, std::byte* tables) {
  const float* const column = s.channel(channel);
  float greatest = 0.0f;
  for (int i = 0; i < kSketchRows; ++i) greatest = std::max(greatest, std::abs(column[i]));
  const float unit = greatest / kSketchTop;
  auto* terms = reinterpret_cast<float*>(tables + layout.terms_byte_ofs()) + 4 * channel;
  float sum = 0.0f;
  for (int i = 0; i < kSketchRows; ++i) {
    const float rounded = std::nearbyint(column[i] / unit);
    const auto n = static_cast<unsigned>(static_cast<int>(rounded));
    const SignPlace at = SignOf(kSketchRows, 0, i);  // of token 0 lane t has the words t
    const int t = i % 8 / 2;
    const int word = at.word % 4 / 2;
    auto* digits = reinterpret_cast<uint32_t*>(tables + layout.ColumnByteOfs(i / kSketchChunk, channel, t));
    for (int p = 0; p < kSketchPlanes; ++p) {
      digits[p / 2 * 4 + (p % 2 == 0 ? 2 : 0) + word] |= (n >> p & 1) << at.bit;
    }
    sum += rounded;
    const int seen = i + 1;
    if (seen == 128 || seen == 256 || seen == 512) {
      const SketchTerm term = SketchTerm::Of(unit, sum);
      terms[0] = term.factor;
      terms[TermOffset(seen)] = term.offset;
    }
  }
}

}  // namespace

AlignedBuffer<std::byte> MakeSketchTables(int dim) {
  const auto sketch = SharedSketch(dim, kSketchRows);
  const SketchTableLayout layout = {dim};
  AlignedBuffer<std::byte> tables(static_cast<size_t>(layout.bytes()));
  FillTiles(*sketch, layout, tables.data());
  for (int c = 0; c < dim; ++c) FillColumn(*sketch, layout, c, tables.data());
  return tables;
}

}  // namespace kvant::cuda
