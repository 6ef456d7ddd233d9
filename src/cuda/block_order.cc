#include "cuda/block_order.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "codec/parts/tile.h"
#include "codec/parts/trellis.h"
#include "cuda/attend_limits.h"
#include "cuda/run_order.h"
#include "cuda/sketch_order.h"

namespace kvant::cuda {
namespace {

bool IsValue(const Codec& codec) { return codec.shape().side == Side::kValue; }

// Visits a stream of 16-bit words: place in the CPU block, place in the device block, in words of the block.
template <typename Visit>
void ForEachParam(const DeviceParams& params, TokenOrder order, int dim, Visit visit) {
  const size_t first = params.byte_ofs / sizeof(uint16_t);
  if (params.axis == ParamAxis::kNone) return;
  const int length = params.axis == ParamAxis::kChannel ? dim : kPageTokens;
  for (int i = 0; i < params.rows * length; ++i) {
    const int at = i % length;
    const int device =
        params.axis == ParamAxis::kChannel ? ChannelParam(at) : TokenParamOf(order, dim, params.rows, at);
    visit(first + static_cast<size_t>(i), first + static_cast<size_t>(i - at + device));
  }
}

// Exact rows are a plane of 16 bits whose codes are the values.
template <typename Visit>
void ForEachExact(const Codec& codec, Visit visit) {
  const int dim = codec.shape().dim;
  for (int t = 0; t < kPageTokens; ++t) {
    for (int c = 0; c < dim; ++c) {
      const Fragment f = FragmentOf(IsValue(codec), t, c);
      const int word = PlaneWord(dim, 16, f.unit, f.lane, FieldOf(dim, 16, f.step, f.reg).word);
      visit(static_cast<size_t>(IsValue(codec) ? t * dim + c : c * kPageTokens + t),
            static_cast<size_t>(2 * word + f.half));
    }
  }
}

template <typename Words>
void PermuteWords(const Codec& codec, const DeviceFormat& format, Words permute) {
  const TokenOrder order = TokenOrderOf(format.kind);
  ForEachParam(format.scales, order, codec.shape().dim, permute);
  ForEachParam(format.shifts, order, codec.shape().dim, permute);
  ForEachParam(format.sketch.outlier_scales, order, codec.shape().dim, permute);
  if (format.kind == CodeKind::kExact) ForEachExact(codec, permute);
}

// Visits the codes that lie in planes: token and channel, and per plane which bits of the code it holds, word and shift on
// the device.
template <typename Visit>
void ForEachPlaneCode(const Codec& codec, const DeviceFormat& format, Visit visit) {
  const int dim = codec.shape().dim;
  for (int t = 0; t < kPageTokens; ++t) {
    for (int c = 0; c < dim; ++c) {
      const Fragment f = FragmentOf(IsValue(codec), t, c);
      int first_word = 0;
      int done = 0;
      for (const int width : {TilePlane0Bits(format.bits), TilePlane1Bits(format.bits)}) {
        if (width == 0) continue;
        const Field field = FieldOf(dim, width, f.step, f.reg);
        visit(t, c, done, width, first_word + PlaneWord(dim, width, f.unit, f.lane, field.word),
              FieldShift(OrderOf(format.kind), width, field.index, f.half));
        first_word += PlaneBytes(dim, width) / 4;
        done += width;
      }
    }
  }
}

// Visits the symbols of a trellis in the same way, bit by bit, because some lie across two bytes.
template <typename Visit>
void ForEachSymbol(const Codec& codec, const DeviceFormat& format, Visit visit) {
  for (int place = 0; place < kPageTokens; ++place) {
    for (int c = 0; c < codec.shape().dim; ++c) {
      const RunPlace at = RunOf(IsValue(codec), place, c);
      for (int done = 0; done < format.bits; ++done) {
        const int bit = SymbolBit(format.bits, place) + done;
        const WordByte byte = RunByteOf(format.bits, at.run, bit / 8);
        visit(TrellisToken(place), c, done, 1, RunWord(format.bits, at.step, at.lane, byte.word),
              byte.byte * 8 + bit % 8);
      }
    }
  }
}

// Likewise joined codes of three bits.
template <typename Visit>
void ForEachTriple(const Codec& codec, Visit visit) {
  const int dim = codec.shape().dim;
  for (int t = 0; t < kPageTokens; ++t) {
    for (int c = 0; c < dim; ++c) {
      const Fragment f = FragmentOf(IsValue(codec), t, c);
      for (int done = 0; done < 3; ++done) {
        const int bit = 6 * f.reg + 3 * f.half + done;
        const WordByte byte = TripleByteOf(f.step % kTriplesPerGroup, bit / 8);
        const int word = PlaneWord(dim, 3, f.unit, f.lane, f.step / kTriplesPerGroup * 3 + byte.word);
        visit(t, c, done, 1, word, byte.byte * 8 + bit % 8);
      }
    }
  }
}

// Signs of one part of a sketch: token and direction, word and bit on the device.
template <typename Visit>
void ForEachSign(int bits, Visit visit) {
  for (int t = 0; t < kPageTokens; ++t) {
    for (int i = 0; i < bits; ++i) {
      const SignPlace at = SignOf(bits, t, i);
      visit(t, i, 0, 1, at.word, at.bit);
    }
  }
}

// A stream of codes.
struct CodeStream {
  size_t byte_ofs;
  size_t bytes;
  int sketch_bits = 0;
};

// Of a block; a sketch with outliers has two.
std::vector<CodeStream> CodeStreams(const Codec& codec, const DeviceFormat& format) {
  const DeviceSketch& sketch = format.sketch;
  const auto signs = [](size_t byte_ofs, int bits) {
    return CodeStream{byte_ofs, TileBytes(1) * static_cast<size_t>(bits / kTileChannels), bits};
  };
  if (format.kind != CodeKind::kSketch) {
    return {{format.codes_byte_ofs, TileBytes(format.bits) * static_cast<size_t>(codec.shape().dim / kTileChannels)}};
  }
  if (sketch.outliers == 0) return {signs(format.codes_byte_ofs, sketch.bits)};
  return {signs(format.codes_byte_ofs, sketch.bits), signs(sketch.outlier_codes_byte_ofs, sketch.outlier_bits)};
}

template <typename Visit>
void ForEachCode(const Codec& codec, const DeviceFormat& format, const CodeStream& stream, Visit visit) {
  if (format.kind == CodeKind::kSketch) {
    ForEachSign(stream.sketch_bits, visit);
  } else if (format.kind == CodeKind::kTrellis) {
    ForEachSymbol(codec, format, visit);
  } else if (OrderOf(format.kind) == PairOrder::kJoined && format.bits == 3) {
    ForEachTriple(codec, visit);
  } else {
    ForEachPlaneCode(codec, format, visit);
  }
}

}  // namespace

Result<DeviceFormat> DeviceFormatOf(const Codec& codec) {
  const std::string name(codec.info->name);
  const int dim = codec.shape().dim;
  if (std::find(std::begin(kDeviceDims), std::end(kDeviceDims), dim) == std::end(kDeviceDims)) {
    return Status::NotSupported(StrFormat("%s: head size %d on a device; accepted: 64, 128, 256", name.c_str(), dim));
  }
  if (codec.info->device_format == nullptr) {
    return Status::NotSupported(StrFormat("%s: no device kernels for this codec yet", name.c_str()));
  }
  return codec.info->device_format(*codec.state);
}

BlockOffsets OffsetsOf(const Codec& codec, const DeviceFormat& format) {
  const auto params = [](const DeviceParams& p) {
    return p.axis == ParamAxis::kNone ? -1 : static_cast<int32_t>(p.byte_ofs);
  };
  return {static_cast<int32_t>(codec.block_bytes()), static_cast<int32_t>(format.codes_byte_ofs), params(format.scales),
          params(format.shifts)};
}

void ToDeviceOrder(const Codec& codec, const DeviceFormat& format, const std::byte* block, std::byte* device_block) {
  std::memcpy(device_block, block, codec.block_bytes());
  const auto* from = reinterpret_cast<const uint16_t*>(block);
  auto* to = reinterpret_cast<uint16_t*>(device_block);
  PermuteWords(codec, format, [&](size_t cpu, size_t device) { to[device] = from[cpu]; });
  if (format.kind == CodeKind::kExact) return;
  const size_t tile_bytes = TileBytes(format.bits);
  for (const CodeStream& stream : CodeStreams(codec, format)) {
    const std::byte* codes = block + stream.byte_ofs;
    auto* words = reinterpret_cast<uint32_t*>(device_block + stream.byte_ofs);
    std::memset(words, 0, stream.bytes);
    ForEachCode(codec, format, stream, [&](int t, int c, int done, int width, int word, int shift) {
      const std::byte* tile = codes + tile_bytes * static_cast<size_t>(c / kTileChannels);
      const auto get = format.kind == CodeKind::kTrellis ? TrellisWindow : TileCode;  // a window ends in the symbol
      const int code = get(TileOrderOf(codec.shape().side), format.bits, tile, t, c % kTileChannels);
      words[word] |= static_cast<uint32_t>(code >> done & ((1 << width) - 1)) << shift;
    });
  }
}

void FromDeviceOrder(const Codec& codec, const DeviceFormat& format, const std::byte* device_block, std::byte* block) {
  std::memcpy(block, device_block, codec.block_bytes());
  const auto* from = reinterpret_cast<const uint16_t*>(device_block);
  auto* to = reinterpret_cast<uint16_t*>(block);
  PermuteWords(codec, format, [&](size_t cpu, size_t device) { to[cpu] = from[device]; });
  if (format.kind == CodeKind::kExact) return;
  const size_t tile_bytes = TileBytes(format.bits);
  for (const CodeStream& stream : CodeStreams(codec, format)) {
    const auto* words = reinterpret_cast<const uint32_t*>(device_block + stream.byte_ofs);
    std::byte* codes = block + stream.byte_ofs;
    std::memset(codes, 0, stream.bytes);
    ForEachCode(codec, format, stream, [&](int t, int c, int done, int width, int word, int shift) {
      std::byte* tile = codes + tile_bytes * static_cast<size_t>(c / kTileChannels);
      const int part = static_cast<int>(words[word] >> shift) & ((1 << width) - 1);
      const auto set = format.kind == CodeKind::kTrellis ? SetTrellisSymbol : SetTileCode;
      set(TileOrderOf(codec.shape().side), format.bits, t, c % kTileChannels, part << done, tile);
    });
  }
}

Status CheckDeviceRange(const Codec& codec, const DeviceFormat& format, const std::byte* block) {
  if (!IsValue(codec) || format.scales.axis != ParamAxis::kToken) return Status::Ok();
  const auto* scales = reinterpret_cast<const F16*>(block + format.scales.byte_ofs);
  for (int i = 0; i < format.scales.rows * kPageTokens; ++i) {
    if (ToFloat(scales[i]) <= kMaxValueScale) continue;
    return Status::InvalidArgument(StrFormat("value scale %g on a device; accepted: up to %g",
                                             static_cast<double>(ToFloat(scales[i])),
                                             static_cast<double>(kMaxValueScale)));
  }
  return Status::Ok();
}

}  // namespace kvant::cuda
