// The kernels in plain C++: for machines without SIMD, and what the SIMD targets are tested against.
#include "codec/cq/cq_kernels.h"

#include <algorithm>
#include <cmath>

namespace kvant::cq {
namespace {

void Quantize(const Codebooks& b, const float* inverse, const float* strip, int first_token, uint8_t* levels) {
  for (int r = 0; r < kStripRows; ++r) {
    float row[kMaxDim];
    uint8_t row_levels[kMaxDim];
    for (int c = 0; c < b.dim; ++c) row[c] = strip[c * kStripRows + r];
    RowLevels(b, inverse, row, row_levels);
    for (int c = 0; c < b.dim; ++c) levels[(c / 4 * kTokensPerPage + first_token + r) * 4 + c % 4] = row_levels[c];
  }
}

void Search(const Codebooks& b, int group, const uint8_t* levels, uint16_t* codes) {
  for (int t = 0; t < kTokensPerPage; ++t) {
    uint8_t mine[kMaxChannels];
    for (int i = 0; i < b.channels; ++i) {
      const int c = group * b.channels + i;
      mine[i] = levels[(c / 4 * kTokensPerPage + t) * 4 + c % 4];
    }
    codes[t] = static_cast<uint16_t>(NearestCode(b, group, mine));
  }
}

void Expand(const Codebooks& b, TileOrder order, const Codes& codes, uint8_t* levels) {
  for (int c = 0; c < b.dim; ++c) {
    const uint8_t* centroids = b.centroids + (static_cast<size_t>(c) << b.bits);
    uint8_t* tile = levels + c / kTileChannels * kTileCodes;
    for (int t = 0; t < kTokensPerPage; ++t) {
      tile[TileIndex(order, t, c % kTileChannels)] = centroids[codes.at(c / b.channels, t)];
    }
  }
}

void FillTable(const Codebooks& b, const float* query, float* scratch, ScoreTable* table) {
  const auto codes = static_cast<size_t>(b.num_codes());
  float min[kMaxDim];
  float ranges[kMaxDim];
  table->base = 0.0f;
  for (int g = 0; g < b.groups(); ++g) {
    float* products = scratch + static_cast<size_t>(g) * codes;
    std::fill_n(products, codes, 0.0f);
    for (int c = g * b.channels; c < (g + 1) * b.channels; ++c) {
      for (size_t k = 0; k < codes; ++k) products[k] += query[c] * b.centroids[static_cast<size_t>(c) * codes + k];
    }
    const auto [least, greatest] = std::minmax_element(products, products + codes);
    min[g] = *least;
    ranges[g] = *greatest - *least;
    table->base += *least;
  }
  ChooseFactors(b.groups(), ranges, table);
  for (size_t i = 0; i < static_cast<size_t>(b.groups()) * codes; ++i) {
    const float step = table->step * static_cast<float>(table->factors[i / codes]);
    const float entry = step > 0.0f ? (scratch[i] - min[i / codes]) / step : 0.0f;
    table->entries[i] = static_cast<uint8_t>(std::min(std::nearbyint(entry), 255.0f));
  }
}

void FillTables(const Codebooks& b, const float* queries, int heads, float* scratch, ScoreTable* tables) {
  for (int h = 0; h < heads; ++h) FillTable(b, queries + h * b.dim, scratch, tables + h);
}

void Score(const Codebooks& b, const Codes& codes, const ScoreTable* tables, int heads, float* scores) {
  for (int h = 0; h < heads; ++h) {
    for (int t = 0; t < kTokensPerPage; ++t) {
      int sum = 0;
      for (int g = 0; g < b.groups(); ++g) {
        sum += tables[h].factors[g] * tables[h].entries[(g << b.bits) + codes.at(g, t)];
      }
      scores[h * kTokensPerPage + t] = static_cast<float>(sum) * tables[h].step + tables[h].base;
    }
  }
}

}  // namespace

void ChooseFactors(int groups, const float* ranges, ScoreTable* table) {
  float total = 0.0f;
  for (int g = 0; g < groups; ++g) total += ranges[g];
  const float share = total > 0.0f ? static_cast<float>(kFactorSum - groups) / total : 0.0f;
  table->step = 0.0f;
  for (int g = 0; g < groups; ++g) {
    table->factors[g] = static_cast<uint16_t>(1 + static_cast<int>(ranges[g] * share * 0.9999f));
    table->step = std::max(table->step, ranges[g] / (255.0f * table->factors[g]));
  }
}

const Kernels& PlainKernels() {
  static constexpr Kernels kKernels = {Quantize, Search, Expand, FillTables, Score};
  return kKernels;
}

}  // namespace kvant::cq
