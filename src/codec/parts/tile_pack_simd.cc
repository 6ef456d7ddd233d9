#include "codec/parts/tile_kernels_impl.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/tile_pack_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "codec/parts/tile_codes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET != HWY_SCALAR
// Plane of kWidth bits from 1,024 ordered codes, whose bits from kShift on belong to it.
template <int kWidth, int kShift>
HWY_INLINE void PackPlane(const uint8_t* HWY_RESTRICT ordered, uint8_t* HWY_RESTRICT plane) {
  constexpr int kBytes = 128 * kWidth;
  const hn::Repartition<uint16_t, D8> d16;
  const V8 mask = hn::Set(d8, static_cast<uint8_t>((1 << kWidth) - 1));
  for (int k = 0; k < kBytes; k += kLanes8) {
    V8 bytes = hn::Zero(d8);
    for (int f = 8 / kWidth - 1; f >= 0; --f) {
      const V8 codes =
          hn::BitCast(d8, hn::ShiftRight<kShift>(hn::BitCast(d16, hn::LoadU(d8, ordered + f * kBytes + k))));
      if constexpr (kWidth < 8) bytes = hn::BitCast(d8, hn::ShiftLeft<kWidth % 8>(hn::BitCast(d16, bytes)));
      bytes = hn::Or(bytes, hn::And(codes, mask));
    }
    hn::StoreU(bytes, d8, plane + k);
  }
}

template <int kBits>
void PackOrdered(const uint8_t* ordered, uint8_t* packed) {
  constexpr int kWidth0 = TilePlane0Bits(kBits);
  PackPlane<kWidth0, 0>(ordered, packed);
  if constexpr (TilePlane1Bits(kBits) != 0) {
    PackPlane<TilePlane1Bits(kBits), kWidth0>(ordered, packed + TileBytes(kWidth0));
  }
}

template <int kBits, int kIndex = 0>
void UnpackOrdered(const uint8_t* packed, uint8_t* ordered) {
  if constexpr (kIndex < kTileCodes) {
    hn::StoreU(Codes<kBits, kIndex>(packed, 0), d8, ordered + kIndex);
    UnpackOrdered<kBits, kIndex + kLanes8>(packed, ordered);
  }
}

using ByteFunction = void (*)(const uint8_t*, uint8_t*);
constexpr ByteFunction kPack[9] = {nullptr, PackOrdered<1>, PackOrdered<2>, PackOrdered<3>, PackOrdered<4>,
                                   nullptr, PackOrdered<6>, nullptr,        PackOrdered<8>};
constexpr ByteFunction kUnpack[9] = {nullptr, UnpackOrdered<1>, UnpackOrdered<2>, UnpackOrdered<3>, UnpackOrdered<4>,
                                     nullptr, UnpackOrdered<6>, nullptr,          UnpackOrdered<8>};

// Between rows of codes and the order of a tile; words of four codes move where four are neighbours in both.
void OrderCodes(TileOrder order, const uint8_t* codes, size_t stride, uint8_t* ordered) {
  if (order == TileOrder::kTokenLane) {
    for (int t = 0; t < 64; ++t) {
      for (int quad = 0; quad < 4; ++quad) {
        hwy::CopyBytes<4>(codes + static_cast<size_t>(t) * stride + quad * 4, ordered + (quad * 64 + t) * 4);
      }
    }
    return;
  }
  for (int t = 0; t < 64; ++t) {
    const uint8_t* row = codes + static_cast<size_t>(t) * stride;
    uint8_t* out = ordered + t / 4 * 64 + t % 4;
    for (int c = 0; c < kTileChannels; ++c) out[c * 4] = row[c];
  }
}

void RestoreCodes(TileOrder order, const uint8_t* ordered, uint8_t* codes, size_t stride) {
  if (order == TileOrder::kTokenLane) {
    for (int t = 0; t < 64; ++t) {
      for (int quad = 0; quad < 4; ++quad) {
        hwy::CopyBytes<4>(ordered + (quad * 64 + t) * 4, codes + static_cast<size_t>(t) * stride + quad * 4);
      }
    }
    return;
  }
  for (int t = 0; t < 64; ++t) {
    uint8_t* row = codes + static_cast<size_t>(t) * stride;
    const uint8_t* in = ordered + t / 4 * 64 + t % 4;
    for (int c = 0; c < kTileChannels; ++c) row[c] = in[c * 4];
  }
}

void Pack(TileOrder order, const uint8_t* bits, int num_tiles, const uint8_t* codes, std::byte* packed) {
  alignas(64) uint8_t ordered[kTileCodes];
  const size_t stride = static_cast<size_t>(num_tiles) * kTileChannels;
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    if (bits[tile] == 0) continue;
    OrderCodes(order, codes + tile * kTileChannels, stride, ordered);
    kPack[bits[tile]](ordered, reinterpret_cast<uint8_t*>(packed));
  }
}

void Unpack(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, uint8_t* codes) {
  alignas(64) uint8_t ordered[kTileCodes];
  const size_t stride = static_cast<size_t>(num_tiles) * kTileChannels;
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    if (bits[tile] == 0) {
      hwy::ZeroBytes<kTileCodes>(ordered);
    } else {
      kUnpack[bits[tile]](reinterpret_cast<const uint8_t*>(packed), ordered);
    }
    RestoreCodes(order, ordered, codes + tile * kTileChannels, stride);
  }
}
#endif  // HWY_SCALAR

TilePackers BestPackers() {
#if HWY_TARGET == HWY_SCALAR
  return {ReferenceTileKernels().pack, ReferenceTileKernels().unpack};
#else
  return {Pack, Unpack};
#endif
}

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(BestPackers);

TilePackers GetTilePackers() { return HWY_DYNAMIC_DISPATCH(BestPackers)(); }

}  // namespace kvant
#endif  // HWY_ONCE
