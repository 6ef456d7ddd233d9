// Where the symbols of a trellis (codec/parts/trellis.h) lie in a device block.
//
// A value depends on symbols of the places before it in its channel. A *run* is what 8 successive places have in one channel:
// 8 * bits bits, the newest symbol lowest, so that the six bits from a symbol upwards are its window. With tokens in order
// kRuns (fragment_order.h) a lane needs of every step four whole runs, in `bits` words:
//
//   keys     run r = channel 2t + r % 2 + 8 (r / 2), places 8g ..;   the run before it is the same of lane - 4
//   values   run r = channel g + 8 (r / 2), places 16t + 8 (r % 2) ..; the run before it is r ^ 1, of lane t - 1 for even r
//
// for lane (g, t) = (lane / 4, lane % 4), lanes being circular as the trellis is.
#pragma once

#include <cstddef>

#include "cuda/fragment_order.h"

namespace kvant::cuda {

constexpr int kRunPlaces = 8;
constexpr int kStepRuns = 4;

struct RunPlace {
  int step;
  int lane;
  int run;
};
KVANT_HD constexpr RunPlace RunOf(bool is_value, int place, int channel) {
  const int c = channel % kStepChannels;
  return is_value ? RunPlace{channel / kStepChannels, c % 8 * 4 + place / 16, c / 8 * 2 + place / 8 % 2}
                  : RunPlace{channel / kStepChannels, place / 8 * 4 + c % 8 / 2, c / 8 * 2 + c % 2};
}

/// The same from the lane's side: what run `run` of a lane is.
struct LaneRun {
  int channel;
  int first_place;

  KVANT_HD constexpr LaneRun(bool is_value, int step, int lane, int run)
      : channel(step * kStepChannels + run / 2 * 8 + (is_value ? lane / 4 : lane % 4 * 2 + run % 2)),
        first_place(is_value ? lane % 4 * 16 + run % 2 * kRunPlaces : lane / 4 * kRunPlaces) {}
};

/// The token at a place of the sequences, and back; as codec/parts/trellis.h has them.
KVANT_HD constexpr int TokenOfPlace(int place) { return place % 8 / 2 * 16 + place / 8 * 2 + place % 2; }
KVANT_HD constexpr int PlaceOfToken(int token) { return token % 16 / 2 * 8 + token / 16 * 2 + token % 2; }

/// A byte of a run among the words of a step.
KVANT_HD constexpr WordByte RunByteOf(int bits, int run, int index) {
  return bits == 2 ? WordByte{run / 2, run % 2 * 2 + index} : TripleByteOf(run, index);
}

/// First bit of a place's symbol in its run.
KVANT_HD constexpr int SymbolBit(int bits, int place) { return bits * (kRunPlaces - 1 - place % kRunPlaces); }

/// Index of a lane's word in the stream: lanes read vectors of four words, which lie side by side. Steps whose words are
/// whole vectors belong together: two with 2 bits, four with 3.
KVANT_HD constexpr int RunWord(int bits, int step, int lane, int word) {
  const int index = step * bits + word;
  return (index / 4 * kLanes + lane) * 4 + index % 4;
}

}  // namespace kvant::cuda
