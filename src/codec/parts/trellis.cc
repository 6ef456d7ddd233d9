#include "codec/parts/trellis.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kvant {
namespace {

constexpr int kTokens = 64;

// Trained by alternating the encoder below and centroid updates on N(0,1), from Gaussian quantiles in random
// order (16 orders, the best kept), then rounded to 1/127 of the largest.
constexpr uint8_t kLevels[kMaxTrellisBits][kTrellisWindows] = {
    {154, 255, 158, 58,  163, 84,  90,  178, 38,  136, 211, 111, 126, 26,  104, 186, 222, 80,  151, 158, 114, 171,
     211, 72,  42,  138, 104, 177, 182, 87,  136, 245, 85,  136, 77,  173, 4,   199, 146, 93,  130, 156, 48,  238,
     190, 111, 192, 82,  93,  202, 79,  114, 119, 100, 11,  164, 155, 32,  154, 75,  81,  179, 59,  146},
    {173, 110, 76,  142, 151, 230, 126, 93,  168, 104, 153, 46,  129, 197, 34,  88,  136, 223, 168, 104, 61, 146,
     98,  187, 47,  182, 139, 102, 200, 153, 89,  128, 91,  59,  133, 180, 120, 119, 170, 72,  112, 25,  71, 144,
     81,  119, 164, 254, 110, 154, 212, 56,  187, 77,  1,   134, 214, 139, 103, 174, 149, 71,  117, 186},
    {107, 133, 120, 78, 155, 95,  187, 57,  194, 153, 70,  42,  134, 117, 99,  171, 70,  197, 135, 105, 86, 230,
     49,  23,  138, 97, 85,  174, 110, 145, 123, 156, 1,   61,  103, 119, 176, 157, 218, 139, 120, 177, 37, 131,
     210, 171, 146, 91, 94,  81,  184, 146, 255, 63,  163, 114, 163, 110, 153, 209, 188, 135, 78,  125},
    {94,  137, 130, 73,  151, 103, 182, 60,  197, 164, 83,  38, 141, 124, 115, 162, 76,  193, 137, 106, 100, 219,
     54,  24,  131, 118, 92,  175, 111, 145, 123, 155, 1,   64, 100, 112, 162, 154, 233, 128, 121, 183, 71,  136,
     210, 170, 145, 87,  88,  79,  158, 143, 255, 47,  168, 97, 175, 112, 149, 203, 187, 131, 107, 121},
};
constexpr float kSteps[kMaxTrellisBits] = {0.014943163f, 0.020163529f, 0.022746632f, 0.024546445f};
constexpr double kDistortion[kMaxTrellisBits] = {0.2958, 0.08248, 0.02386, 0.006823};

int16_t Tick(float value, const Codebook& book) {
  const auto per_step = static_cast<float>(TrellisTicksPerStep(book.bits));
  const float limit = per_step * kMaxTrellisSteps;
  return static_cast<int16_t>(std::nearbyint(std::clamp(value * (per_step / book.step), -limit, limit)));
}

// ---- runs in a tile

struct RunPlace {
  int part;
  int run;
};
RunPlace PlaceOfRun(TileOrder order, int i, int channel) {
  return order == TileOrder::kTokenLane ? RunPlace{channel / 4, i * 4 + channel % 4}
                                        : RunPlace{i / 2, channel * 2 + i % 2};
}

// Calls visit(byte of the tile, shift of its bits in the run).
template <typename Visit>
void ForEachRunByte(int bits, RunPlace place, const Visit& visit) {
  const int words = bits / 2;
  const int pair = place.part / 2 * 64 * bits;
  const int second = place.part % 2;
  for (int i = 0; i < 2 * words; ++i) visit(pair + (second * words + i / 2) * 64 + 2 * place.run + i % 2, 8 * i);
  if (bits % 2 == 1) visit(pair + 2 * words * 64 + 2 * place.run + second, 16 * words);
}

uint32_t LoadRun(int bits, RunPlace place, const std::byte* packed) {
  uint32_t run = 0;
  ForEachRunByte(bits, place, [&](int byte, int shift) { run |= static_cast<uint32_t>(packed[byte]) << shift; });
  return run;
}
void StoreRun(int bits, RunPlace place, uint32_t run, std::byte* packed) {
  ForEachRunByte(bits, place, [&](int byte, int shift) { packed[byte] = static_cast<std::byte>(run >> shift); });
}

// Bit of a place's symbol in its run.
int SymbolShift(int bits, int place) { return bits * (7 - place % 8); }

void PackRuns(TileOrder order, int bits, const uint8_t* codes, size_t stride, std::byte* packed) {
  for (int i = 0; i < 8; ++i) {
    uint32_t runs[kTileChannels] = {};
    for (int place = 8 * i; place < 8 * i + 8; ++place) {
      const uint8_t* row = codes + static_cast<size_t>(TrellisToken(place)) * stride;
      for (int c = 0; c < kTileChannels; ++c) runs[c] = runs[c] << bits | row[c];
    }
    for (int c = 0; c < kTileChannels; ++c) StoreRun(bits, PlaceOfRun(order, i, c), runs[c], packed);
  }
}

// ---- the best path through the trellis of one channel

// A state is what the next window keeps of this one: its low 6 - b bits.
struct Trellis {
  int bits;
  const uint8_t* levels;
  int states() const { return kTrellisWindows >> bits; }
  int Cost(int window, int tick) const {
    const int difference = tick - TrellisTicksPerStep(bits) * (levels[window] - 128);
    return difference * difference;
  }
};

// Cheapest windows for places first, first + 1, ... (64 of them, circular). start < 0: any state at both
// ends; else the path begins and ends in state `start`. Ties go to the window with the smaller oldest symbol,
// and the lower end state.
void BestPath(const Trellis& trellis, const int16_t* ticks, size_t stride, int first, int start, int* windows) {
  constexpr int kFar = 1 << 25;  // more than any detour costs, and its multiples still fit
  int cost[kTrellisWindows / 2];
  uint8_t from[kTokens][kTrellisWindows / 2];
  const int states = trellis.states();
  for (int s = 0; s < states; ++s) cost[s] = start < 0 || s == start ? 0 : kFar;
  for (int i = 0; i < kTokens; ++i) {
    const int tick = ticks[static_cast<size_t>(TrellisToken((first + i) % kTokens)) * stride];
    int next[kTrellisWindows / 2];
    for (int s = 0; s < states; ++s) {
      next[s] = std::numeric_limits<int>::max();
      for (int window = s; window < kTrellisWindows; window += states) {
        const int total = cost[window >> trellis.bits] + trellis.Cost(window, tick);
        if (total >= next[s]) continue;
        next[s] = total;
        from[i][s] = static_cast<uint8_t>(window);
      }
    }
    std::copy_n(next, states, cost);
  }
  int state = start < 0 ? static_cast<int>(std::min_element(cost, cost + states) - cost) : start;
  for (int i = kTokens - 1; i >= 0; --i) {
    windows[(first + i) % kTokens] = from[i][state];
    state = from[i][state] >> trellis.bits;
  }
}

// Circular path: a free path through the sequence turned by half gives the state at the seam; the second
// keeps to it.
void CircularPath(const Trellis& trellis, const int16_t* ticks, size_t stride, int* windows) {
  BestPath(trellis, ticks, stride, kTokens / 2, -1, windows);
  BestPath(trellis, ticks, stride, 0, windows[kTokens - 1] & (trellis.states() - 1), windows);
}

// Code of a scalar tile: the step that the value falls into.
int ScalarCode(int bits, int tick) {
  const int half = 1 << (bits - 1);
  return std::clamp((tick >> 6) + half, 0, 2 * half - 1);
}

struct Sums {
  float energy = 0.0f;
  float dot = 0.0f;
  float norm = 0.0f;
};

void AddValue(float weight, float value, float code_value, Sums* sums) {
  sums->energy += weight * value * value;
  sums->dot += weight * value * code_value;
  sums->norm += weight * code_value * code_value;
}

// Codes of one channel; adds to the sums of its tokens.
void CodeChannel(const GainQuantizer& q, int c, const int16_t* ticks, uint8_t* codes, Sums* sums) {
  const int bits = q.bits[c / kTileChannels];
  const size_t stride = static_cast<size_t>(q.num_tiles) * kTileChannels;
  const Codebook& book = q.books->by_bits[bits];
  const float weight = q.maybe_weights ? q.maybe_weights[c] : 1.0f;
  int windows[kTokens] = {};
  if (bits > 0 && bits <= kMaxTrellisBits) {
    CircularPath({bits, TrellisLevels(bits)}, ticks + c, stride, windows);
  }
  for (int t = 0; t < kTokens; ++t) {
    const size_t at = static_cast<size_t>(t) * stride + static_cast<size_t>(c);
    int level = 0;
    codes[at] = 0;
    if (bits == 0) continue;
    if (bits <= kMaxTrellisBits) {
      const int window = windows[TrellisPlace(t)];
      codes[at] = static_cast<uint8_t>(window & ((1 << bits) - 1));
      level = TrellisLevels(bits)[window];
    } else {
      level = codes[at] = static_cast<uint8_t>(ScalarCode(bits, ticks[at]));
    }
    const float value = static_cast<float>(ticks[at]) * (book.step / static_cast<float>(TrellisTicksPerStep(bits)));
    AddValue(weight, value, (static_cast<float>(level) - book.center) * book.step, sums + t);
  }
}

void ExpandTile(TileOrder order, int bits, const std::byte* packed, std::byte* levels) {
  for (int t = 0; t < kTokens; ++t) {
    for (int c = 0; c < kTileChannels; ++c) {
      const int level = bits <= kMaxTrellisBits ? TrellisLevels(bits)[TrellisWindow(order, bits, packed, t, c)]
                                                : TileCode(order, bits, packed, t, c);
      levels[TileIndex(order, t, c)] = static_cast<std::byte>(level);
    }
  }
}

}  // namespace

const uint8_t* TrellisLevels(int bits) { return kLevels[bits - 1]; }

const CodebookSet& TrellisCodebooks() {
  static const CodebookSet kSet = [] {
    CodebookSet set = UniformCodebooks();
    for (int bits = 1; bits <= kMaxTrellisBits; ++bits) {
      set.by_bits[bits] = {
          .bits = bits, .step = kSteps[bits - 1], .center = 128.0f, .distortion = kDistortion[bits - 1]};
    }
    return set;
  }();
  return kSet;
}

int TrellisWindow(TileOrder order, int bits, const std::byte* packed, int token, int channel) {
  const int place = TrellisPlace(token);
  const RunPlace run = PlaceOfRun(order, place / 8, channel);
  const RunPlace before = PlaceOfRun(order, (place / 8 + 7) % 8, channel);
  const uint64_t symbols = LoadRun(bits, run, packed) | uint64_t{LoadRun(bits, before, packed)} << (8 * bits);
  return static_cast<int>(symbols >> SymbolShift(bits, place)) & (kTrellisWindows - 1);
}

void SetTrellisSymbol(TileOrder order, int bits, int token, int channel, int symbol, std::byte* packed) {
  const int place = TrellisPlace(token);
  const RunPlace run = PlaceOfRun(order, place / 8, channel);
  const uint32_t symbols = LoadRun(bits, run, packed);
  StoreRun(bits, run, symbols | static_cast<uint32_t>(symbol) << SymbolShift(bits, place), packed);
}

void TrellisPack(TileOrder order, const uint8_t* bits, int num_tiles, const uint8_t* codes, std::byte* packed) {
  const size_t stride = static_cast<size_t>(num_tiles) * kTileChannels;
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile, codes += kTileChannels) {
    if (bits[tile] > kMaxTrellisBits) {
      PackTile(order, bits[tile], codes, stride, packed);
    } else if (bits[tile] > 0) {
      PackRuns(order, bits[tile], codes, stride, packed);
    }
  }
}

void TrellisTicks(const GainQuantizer& q, const float* row, int16_t* ticks, float* gain) {
  *gain = RowGain(q, row);
  const float inverse = *gain > kLeastRowGain ? 1.0f / *gain : 0.0f;
  for (int c = 0; c < q.num_tiles * kTileChannels; ++c) {
    const int bits = q.bits[c / kTileChannels];
    ticks[c] = bits == 0 ? int16_t{0} : Tick(row[c] * inverse, q.books->by_bits[bits]);
  }
}

void TrellisCodes(const GainQuantizer& q, const int16_t* ticks, const float* gains, uint8_t* codes, float* scales) {
  Sums sums[kTokens];
  for (int c = 0; c < q.num_tiles * kTileChannels; ++c) CodeChannel(q, c, ticks, codes, sums);
  for (int t = 0; t < kTokens; ++t) {
    const float ratio = q.rule == ScaleRule::kUnbiased ? sums[t].energy / sums[t].dot : sums[t].dot / sums[t].norm;
    scales[t] = sums[t].dot > 0.0f ? gains[t] * ratio : 0.0f;
  }
}

void TrellisExpand(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, std::byte* levels) {
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    if (bits[tile] == 0) continue;
    ExpandTile(order, bits[tile], packed, levels);
    levels += kTileCodes;
  }
}

}  // namespace kvant
