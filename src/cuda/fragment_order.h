// Where a code of a page lies in a device block, so that a lane finds the operands of its matrix products in its own
// words. Shared by packing on the host, kernels and tests.
//
// Kernels multiply with mma.m16n8k16: A is 16 x 16 values of the page, B the query heads or the softmax weights. A *unit*
// is 16 tokens, a *step* 16 channels. Keys have tokens as rows and channels as columns, values the other way round
// (V^T). Lane (g, t) = (lane / 4, lane % 4) holds of A eight values in four registers of two halves each:
//   register r, half h  =  row g + 8 (r % 2), column 2 t + 8 (r / 2) + h.
//
// A plane of `width` bits per code stores for each unit and lane UnitWords words. A word has 16 / width fields, each for
// one register: word and field follow from (step, register) by FieldOf. In a field, the two halves lie
//   kSplit:  16 bits apart, so that one mask gives both halves of a register (codes that become floats by arithmetic);
//   kJoined: side by side, so that they are one index into a table of pairs.
// Words of 32 lanes are interleaved by vectors of up to 16 bytes: reading them meets no bank twice.
//
// Parameters follow the same idea: a lane reads those of its channels, or of its tokens, in whole vectors.
#pragma once

#include <cstddef>

#include "base/host_device.h"

namespace kvant::cuda {

constexpr int kLanes = 32;
constexpr int kUnitTokens = 16;
constexpr int kStepChannels = 16;
constexpr int kPageTokens = 64;
constexpr int kUnits = kPageTokens / kUnitTokens;

enum class PairOrder { kSplit, kJoined };

/// Which token stands in a row of a unit, which always is 16 successive tokens. kUnits: in order. kRuns: rows g and g + 8 are
/// neighbours, and places 8 g .. 8 g + 7 of the sequence that a trellis codes (codec/parts/trellis.h) are in turn the rows g
/// and g + 8 of the units: what depends on the places before it lies in one lane (run_order.h).
enum class TokenOrder { kUnits, kRuns };
KVANT_HD constexpr int TokenAt(TokenOrder order, int unit, int row) {
  return unit * kUnitTokens + (order == TokenOrder::kUnits ? row : row % 8 * 2 + row / 8);
}

/// Which token and column a lane's scores are of: element i of register group r of the results of products.
///
/// kPlain: 16 tokens x 8 columns, as mma leaves them. kPaired: rows are pairs of neighbouring tokens, 16 pairs of two units; columns
/// are those of the pair's first token and then those of its second, so there are only 4.
struct PlainScores {
  static constexpr int kGroups = 4;     ///< of registers
  static constexpr int kColumns = 8;    ///< of a tile
  static constexpr int kFirstMask = 4;  ///< lanes that differ in this bit and above have the same columns
  KVANT_HD static constexpr int Token(TokenOrder order, int group, int i, int lane) {
    return TokenAt(order, group, i / 2 * 8 + lane / 4);
  }
  KVANT_HD static constexpr int Column(int i, int lane) { return lane % 4 * 2 + i % 2; }
};
struct PairedScores {
  static constexpr int kGroups = 2;
  static constexpr int kColumns = 4;
  static constexpr int kFirstMask = 2;
  KVANT_HD static constexpr int Token(TokenOrder, int group, int i, int lane) {
    return (2 * group + i / 2) * kUnitTokens + lane / 4 * 2 + lane % 4 / 2;
  }
  KVANT_HD static constexpr int Column(int i, int lane) { return lane % 2 * 2 + i % 2; }
};

/// Place of a value among the operands of a page, with tokens in order kUnits.
struct Fragment {
  int unit;
  int step;
  int lane;
  int reg;
  int half;
};

KVANT_HD constexpr Fragment FragmentOf(bool is_value, int token, int channel) {
  const int row = is_value ? channel % kStepChannels : token % kUnitTokens;
  const int column = is_value ? token % kUnitTokens : channel % kStepChannels;
  return {token / kUnitTokens, channel / kStepChannels, row % 8 * 4 + column % 8 / 2, row / 8 + column / 8 * 2,
          column % 2};
}

/// Words of a plane per unit and lane. REQUIRES: dim is 64, 128 or 256, width 1, 2, 3 (joined), 4, 8 or 16.
KVANT_HD constexpr int UnitWords(int dim, int width) { return dim * width / 64; }
/// Words that a lane reads at once.
KVANT_HD constexpr int VectorWords(int dim, int width) {
  return width == 3 ? dim / 64 : UnitWords(dim, width) < 4 ? UnitWords(dim, width) : 4;
}
KVANT_HD constexpr int PlaneBytes(int dim, int width) { return kUnits * kLanes * 4 * UnitWords(dim, width); }

struct Field {
  int word;   ///< of the unit
  int index;  ///< in the word
};

KVANT_HD constexpr Field FieldOf(int dim, int width, int step, int reg) {
  const int fields = 16 / width;
  const int steps = dim / kStepChannels;
  if (steps >= fields) return {step / fields * 4 + reg, step % fields};
  const int regs = fields / steps;  // registers that share a word
  return {reg / regs, reg % regs * steps + step};
}

/// Joined codes of three bits are not in planes: the four registers of a step are 24 bits, the pair of register r from bit 6 r
/// up; four steps, or *triples*, are three words. Bytes of a triple: three have the low ones of a word each, the fourth the
/// highest of all.
constexpr int kTriplesPerGroup = 4;
struct WordByte {
  int word;  ///< of the group
  int byte;
};
KVANT_HD constexpr WordByte TripleByteOf(int triple, int index) {
  return triple < 3 ? WordByte{triple, index} : WordByte{index, 3};
}

/// Index of a lane's word in a plane, or in joined codes of three bits.
KVANT_HD constexpr int PlaneWord(int dim, int width, int unit, int lane, int word) {
  const int vector = VectorWords(dim, width);
  return ((unit * (UnitWords(dim, width) / vector) + word / vector) * kLanes + lane) * vector + word % vector;
}

/// First bit of a half's code in its word. The single bits that complete codes of three are spread so that one shift
/// brings several of them above the two bits they belong to: four, two apart.
KVANT_HD constexpr int FieldShift(PairOrder order, int width, int index, int half) {
  if (order == PairOrder::kSplit) {
    return 16 * half + (width == 1 ? index / 8 * 8 + index / 4 % 2 + index % 4 * 2 : width * index);
  }
  return (2 * index + half) * width;
}

/// Index of a channel's half among those of `rows` rows, each for one lane: words [step / 2][row][step % 2][2], so that the
/// vectors that lanes read at once lie side by side. A row t finds the channels (2t, 2t+1) and (2t+8, 2t+9) of every step.
KVANT_HD constexpr int ChannelHalf(int rows, int row, int channel) {
  const int step = channel / kStepChannels;
  return (((step / 2 * rows + row) * 2 + step % 2) * 2 + channel % kStepChannels / 8) * 2 + channel % 2;
}

/// Index of a channel's parameter in [dim]: lane t = lane % 4 finds those of its channels.
KVANT_HD constexpr int ChannelParam(int channel) { return ChannelHalf(4, channel % 8 / 2, channel); }

/// Index of a token's parameter in [64]: lane g = lane / 4 finds the tokens of its rows g and g + 8 of the units, in order.
KVANT_HD constexpr int TokenParam(TokenOrder order, int token) {
  const int t = token % kUnitTokens;
  const int g = order == TokenOrder::kUnits ? t % 8 : t / 2;
  const int half = order == TokenOrder::kUnits ? t / 8 : t % 2;
  return (g * kUnits + token / kUnitTokens) * 2 + half;
}

/// Likewise where weights are multiplied with them as operands: lane t = lane % 4 finds the tokens of its columns 2t, 2t + 1
/// and 2t + 8, 2t + 9 of the units, a word for each two.
KVANT_HD constexpr int TokenPairParam(int token) {
  const int t = token % kUnitTokens;
  return ((t % 8 / 2 * kUnits + token / kUnitTokens) * 2 + t / 8) * 2 + t % 2;
}

/// Which of the two a block has, for `rows` rows of parameters by tokens: values whose groups are smaller than 128 channels are
/// read the second way (grouped_values.h).
KVANT_HD constexpr int TokenParamOf(TokenOrder order, int dim, int rows, int token) {
  return rows > 1 && rows * 128 > dim ? TokenPairParam(token) : TokenParam(order, token);
}

/// Index of a query value in halves [8 heads][dim], the B operand: rows are channels, columns heads.
KVANT_HD constexpr int QueryHalf(int head, int channel) {
  return ChannelHalf(kLanes, head * 4 + channel % 8 / 2, channel);
}

}  // namespace kvant::cuda
