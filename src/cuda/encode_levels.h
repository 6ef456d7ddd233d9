// Encoding levels on the device, as what four warps do with one block: a warp has 16 tokens in registers from the load of fp16
// rows to the words of codes.
//
// The Hadamard transform of channel 16 s + k is a matrix product over k, of the rows as they are with the signed matrix, and
// one over the steps s, additions of floats. Page means are rows of a further product. A value's code follows from the bin it
// is in: of so many that no two borders between codes share one, so a bin knows its border and the code below.
#pragma once

#include "cuda/block_readers.h"
#include "cuda/encode_warp.h"
#include "cuda/unit_rows.h"

namespace kvant::cuda {

constexpr int kLevelThreads = kUnits * kLanes;

/// What the threads of a block share.
template <int kDim>
struct LevelSpace {
  static constexpr int kBins = 64;
  static constexpr int kCodes = 16;
  alignas(128) uint32_t bins[kBins * kLanes];  ///< tables with a column per lane
  uint32_t levels[kCodes * kLanes];
  alignas(16) uint32_t signs[4][kDim / 8];  ///< [lane % 4][step][register]: of the operand B
  float sums[kUnits][kDim];
  alignas(8) uint16_t means[kDim];
  uint32_t bin[kBins];
};

/// Bins of values in units of their row's root mean square.
struct BinMap {
  static constexpr int kLast = LevelSpace<64>::kBins - 1;
  /// The bits of a sum with it are an integer above something that a table's rows of 128 bytes shift out.
  static constexpr float kInteger = 33554432.0f;  // 2^25, in units of 4
  float scale;

  KVANT_HD explicit BinMap(float greatest_border) : scale((0.5f - 1.0f / kLast) / greatest_border) {}
  /// Bin plus 0x4C000000.
  template <class W>
  KVANT_HD uint32_t Bin(float x) const {
    return W::AsBits(W::Saturate(x * scale + 0.5f) * (4.0f * kLast) + kInteger);
  }
};

template <class W, int kDim, int kBits>
class LevelEncoder {
 public:
  static constexpr int kHalf = 1 << (kBits - 1);
  static constexpr int kSteps = kDim / kStepChannels;
  using Space = LevelSpace<kDim>;

  /// Fills the tables; all threads of a block.
  KVANT_HD LevelEncoder(const EncodeParams& p, int thread, Space* space)
      : p_(p), space_(space), unit_(thread / kLanes), lane_(thread % kLanes), map_(p.thresholds[kHalf - 2]) {
    for (int i = thread; i < space->kBins; i += kLevelThreads) space->bin[i] = BinEntry(i);
    for (int i = thread; i < kDim / 2; i += kLevelThreads) {
      const int t = i / (kDim / 8), word = i % (kDim / 8);
      uint32_t* to = &space->signs[t][word];
      const int channel = word / 2 * kStepChannels + 4 * t + word % 2 * 2;
      *to = (DeviceHadamardSign(channel) < 0.0f ? 0x8000u : 0) |
            (DeviceHadamardSign(channel + 1) < 0.0f ? kMinus << 16 : 0);
    }
    W::BlockSync();
    FillTable(space->kBins, thread, kLevelThreads, reinterpret_cast<std::byte*>(space->bins),
              [space](int i) { return space->bin[i]; });
    FillTable(2 * kHalf, thread, kLevelThreads, reinterpret_cast<std::byte*>(space->levels),
              [&p](int i) { return W::AsBits(p.levels[i] * p.step); });
    W::BlockSync();
  }

  KVANT_HD void Encode(int page, int head) {
    if (p_.slots[page] < 0) return;
    std::byte* block = BlockOf(p_, page, head);
    UnitRows<kDim> rows;
    Load(page, head, &rows);
    float y[kSteps][2][4] = {};
    if (p_.offsets.shifts >= 0) {
      Means(rows, block + p_.offsets.shifts);
      UnitRows<kDim> means;
      MeanRows(&means);
      Multiply(means, y);
    }
    Multiply(rows, y);
    SumSteps(y);
    uint32_t scales = 0;
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) scales |= static_cast<uint32_t>(Codes(y, half, &rows)) << (16 * half);
    if (lane_ % 4 == 0) {
      reinterpret_cast<uint32_t*>(block + p_.offsets.scales)[lane_ / 4 * kUnits + unit_] = scales;
    }
    if (p_.is_value) rows.template Transpose<W>();
    Store(rows, block + p_.offsets.codes);
  }

 private:
  static constexpr uint32_t kMinus = 0x80008000u;
  static constexpr int kLast = BinMap::kLast;

  // A bin's border as a float, its lowest bits the code below.
  KVANT_HD uint32_t BinEntry(int bin) const {
    float border = 3e38f;
    uint32_t below = 0;
    KVANT_UNROLL
    for (int i = 1; i < 2 * kHalf; ++i) {
      const float x = i == kHalf ? -1e-30f : i < kHalf ? -p_.thresholds[kHalf - 1 - i] : p_.thresholds[i - kHalf - 1];
      const int at = static_cast<int>(map_.Bin<W>(x) & kLast);
      if (at < bin) ++below;
      if (at == bin) border = x;
    }
    return W::MaskOr(W::AsBits(border), ~15u, below);
  }

  /// Rows g and g + 8; a lane has the channels 4t .. 4t + 3 of each step, which is the order of the columns here.
  KVANT_HD void Load(int page, int head, UnitRows<kDim>* rows) const {
    struct alignas(8) Words2 {
      uint32_t word[2];
    };
    KVANT_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int token = unit_ * kUnitTokens + lane_ / 4 + 8 * half;
      const int64_t row = (static_cast<int64_t>(page) * kPageTokens + token) * p_.kv_heads + head;
      const auto* from = reinterpret_cast<const Words2*>(p_.rows + row * kDim) + lane_ % 4;
      KVANT_UNROLL
      for (int s = 0; s < kSteps; ++s) {
        const Words2 v = W::LoadConstant(from + 4 * s);
        rows->word[s][half] = v.word[0];
        rows->word[s][2 + half] = v.word[1];
      }
    }
  }

  /// Of the page's channels in fp16, to shared memory and to the block.
  KVANT_HD void Means(const UnitRows<kDim>& rows, std::byte* to) {
    constexpr uint32_t kOnes[4] = {0x3C003C00u, 0x3C003C00u, 0x3C003C00u, 0x3C003C00u};
    KVANT_UNROLL
    for (int i = 0; i < 2 * kSteps; ++i) {
      float c[4] = {};
      const uint32_t(&a)[4] = rows.word[i / 2];
      W::Product(c, kOnes, W::Transpose(a[i % 2 * 2]), W::Transpose(a[i % 2 * 2 + 1]));
      if (lane_ >= 4) continue;
      float* sums = space_->sums[unit_] + i / 2 * kStepChannels + 4 * lane_ + i % 2 * 2;
      sums[0] = c[0];
      sums[1] = c[1];
    }
    W::BlockSync();
    for (int c = unit_ * kLanes + lane_; c < kDim; c += kLevelThreads) {
      const float sum = (space_->sums[0][c] + space_->sums[1][c]) + (space_->sums[2][c] + space_->sums[3][c]);
      const uint16_t mean = W::FloatToHalf(sum / static_cast<float>(kPageTokens));
      space_->means[c] = mean;
      reinterpret_cast<uint16_t*>(to)[ChannelParam(c)] = mean;
    }
    W::BlockSync();
  }
  /// The means, negative, as each row.
  KVANT_HD void MeanRows(UnitRows<kDim>* rows) const {
    KVANT_UNROLL
    for (int i = 0; i < 2 * kSteps; ++i) {
      const int channel = i / 2 * kStepChannels + lane_ % 4 * 4 + i % 2 * 2;
      const uint32_t mean = *reinterpret_cast<const uint32_t*>(space_->means + channel) ^ kMinus;
      rows->word[i / 2][i % 2 * 2] = rows->word[i / 2][i % 2 * 2 + 1] = mean;
    }
  }

  /// y += rows x signed matrix, step by step: [step][columns 0-7, 8-15].
  KVANT_HD void Multiply(const UnitRows<kDim>& rows, float (&y)[kSteps][2][4]) const {
    const int g = lane_ / 4, t = lane_ % 4;
    uint32_t base[2] = {};
    KVANT_UNROLL
    for (int i = 0; i < 4; ++i) {
      const uint32_t half = W::CountBits((4 * t + i) & g) % 2 == 0 ? 0x3C00u : 0xBC00u;
      base[i / 2] |= half << (16 * (i % 2));
    }
    const uint32_t second = t >= 2 ? kMinus : 0;  // columns 8 to 15 differ in the sign of the rows 8 to 15
    KVANT_UNROLL
    for (int s = 0; s < kSteps; ++s) {
      const uint32_t b[2] = {base[0] ^ space_->signs[t][2 * s], base[1] ^ space_->signs[t][2 * s + 1]};
      W::Product(y[s][0], rows.word[s], b[0], b[1]);
      W::Product(y[s][1], rows.word[s], b[0] ^ second, b[1] ^ second);
    }
  }
  KVANT_HD static void SumSteps(float (&y)[kSteps][2][4]) {
    KVANT_UNROLL
    for (int stride = 1; stride < kSteps; stride *= 2) {
      KVANT_UNROLL
      for (int i = 0; i < kSteps * 8; ++i) {
        if ((i / 8 & stride) != 0) continue;
        float* a = &y[i / 8][i / 4 % 2][i % 4];
        float* b = &y[i / 8 + stride][i / 4 % 2][i % 4];
        const float sum = *a + *b;
        *b = *a - *b;
        *a = sum;
      }
    }
  }

  /// Codes of row g or g + 8, two channels in the halves of a word; returns its scale.
  KVANT_HD uint16_t Codes(const float (&y)[kSteps][2][4], int half, UnitRows<kDim>* codes) const {
    float energy = 0.0f;
    KVANT_UNROLL
    for (int i = 0; i < 4 * kSteps; ++i) {
      const float value = y[i / 4][i / 2 % 2][2 * half + i % 2];
      energy += value * value;
    }
    const float gain = W::Sqrt(SumOfLanes<W, 4>(energy)) / static_cast<float>(kDim);
    const float inverse = InverseGain<W>(gain) * HadamardNorm<kDim>();
    const typename W::Column bins = W::ColumnOf(reinterpret_cast<const std::byte*>(space_->bins), lane_);
    const typename W::Column levels = W::ColumnOf(reinterpret_cast<const std::byte*>(space_->levels), lane_);
    RowSums sums = {.energy = energy * inverse * inverse};
    KVANT_UNROLL
    for (int i = 0; i < 2 * kSteps; ++i) {
      uint32_t pair = 0;
      KVANT_UNROLL
      for (int j = 0; j < 2; ++j) {
        const float x = y[i / 2][i % 2][2 * half + j] * inverse;
        const uint32_t entry = W::Lookup(bins, map_.template Bin<W>(x), 128);
        const uint32_t code = (entry & 15) + (x > W::AsFloat(static_cast<int32_t>(entry)) ? 1 : 0);
        const float level = W::AsFloat(static_cast<int32_t>(W::Lookup(levels, code, 128)));
        sums.dot += x * level;
        sums.norm += level * level;
        pair |= code << (16 * j);
      }
      codes->word[i / 2][i % 2 * 2 + half] = pair;
    }
    return sums.template Scale<W, 4>(p_, gain);
  }

  /// The two codes of a register side by side.
  KVANT_HD static uint32_t Joined(uint32_t halves) {
    return (halves | halves >> (16 - kBits)) & ((1u << 2 * kBits) - 1);
  }
  KVANT_HD void Store(const UnitRows<kDim>& codes, std::byte* to) const {
    using Words = PlaneWords<kDim, kBits>;
    uint32_t word[Words::kCount] = {};
    KVANT_UNROLL
    for (int step = 0; step < kSteps; ++step) {
      if constexpr (kBits == 3) {
        uint32_t triple = 0;
        KVANT_UNROLL
        for (int reg = 0; reg < 4; ++reg) triple |= Joined(codes.word[step][reg]) << (6 * reg);
        KVANT_UNROLL
        for (int i = 0; i < 3; ++i) {
          const WordByte at = TripleByteOf(step % kTriplesPerGroup, i);
          word[step / kTriplesPerGroup * 3 + at.word] |= (triple >> (8 * i) & 0xFF) << (8 * at.byte);
        }
      } else {
        KVANT_UNROLL
        for (int reg = 0; reg < 4; ++reg) {
          const Field field = FieldOf(kDim, kBits, step, reg);
          word[field.word] |= Joined(codes.word[step][reg]) << FieldShift(PairOrder::kJoined, kBits, field.index, 0);
        }
      }
    }
    KVANT_UNROLL
    for (int i = 0; i < Words::kCount; i += Words::kVector) {
      typename Words::Vector v;
      KVANT_UNROLL
      for (int j = 0; j < Words::kVector; ++j) v.word[j] = word[i + j];
      *reinterpret_cast<typename Words::Vector*>(to + 4 * PlaneWord(kDim, kBits, unit_, lane_, i)) = v;
    }
  }

  const EncodeParams& p_;
  Space* space_;
  int unit_;
  int lane_;
  BinMap map_;
};

}  // namespace kvant::cuda
