#include "codec/parts/trellis.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "codec/parts/trellis_expand_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"
// After highway.h.
#include "codec/parts/trellis_levels-inl.h"

HWY_BEFORE_NAMESPACE();
namespace kvant {
namespace HWY_NAMESPACE {
namespace {

#if HWY_TARGET == HWY_SCALAR

TrellisExpander Expander() { return TrellisExpand; }

#else

template <TileOrder kOrder, int kPair = 0, int kBits>
HWY_INLINE void StoreLevels(const Runs<kOrder, kBits>& runs, const LevelTable& table, int part,
                            uint8_t* HWY_RESTRICT levels) {
  if constexpr (kPair < 4) {
    const int vector = kOrder == TileOrder::kTokenLane ? part * 4 + kPair : kPair * 4 + part;
    hn::StoreU(runs.template Levels<kPair>(table), d8, levels + vector * 64);
    StoreLevels<kOrder, kPair + 1>(runs, table, part, levels);
  }
}

template <TileOrder kOrder, int kBits>
HWY_INLINE void ExpandTrellis(const uint8_t* HWY_RESTRICT tile, uint8_t* HWY_RESTRICT levels) {
  const LevelTable table(kBits);
  for (int pair = 0; pair < 2; ++pair) {
    for (int piece = 0; piece < 64 / kLanes8; ++piece) {
      Runs<kOrder, kBits> runs;
      runs.template Load<0>(tile, pair, piece);
      StoreLevels<kOrder>(runs, table, pair * 2, levels + piece * kLanes8);
      runs.template Load<1>(tile, pair, piece);
      StoreLevels<kOrder>(runs, table, pair * 2 + 1, levels + piece * kLanes8);
    }
  }
}

template <int kBits, int kIndex = 0>
HWY_INLINE void UnpackCodes(const uint8_t* HWY_RESTRICT tile, uint8_t* HWY_RESTRICT out) {
  if constexpr (kIndex < kTileCodes) {
    for (int extra = 0; extra < 128; extra += kLanes8) {
      hn::StoreU(Codes<kBits, kIndex>(tile, extra), d8, out + kIndex + extra);
    }
    UnpackCodes<kBits, kIndex + 128>(tile, out);
  }
}

template <TileOrder kOrder>
void ExpandTile(int bits, const uint8_t* tile, uint8_t* levels) {
  switch (bits) {
    case 1:
      return ExpandTrellis<kOrder, 1>(tile, levels);
    case 2:
      return ExpandTrellis<kOrder, 2>(tile, levels);
    case 3:
      return ExpandTrellis<kOrder, 3>(tile, levels);
    case 4:
      return ExpandTrellis<kOrder, 4>(tile, levels);
    case 6:
      return UnpackCodes<6>(tile, levels);
    default:
      return UnpackCodes<8>(tile, levels);
  }
}

void Expand(TileOrder order, const uint8_t* bits, int num_tiles, const std::byte* packed, std::byte* levels) {
  const auto expand =
      order == TileOrder::kTokenLane ? ExpandTile<TileOrder::kTokenLane> : ExpandTile<TileOrder::kChannelLane>;
  for (int tile = 0; tile < num_tiles; packed += TileBytes(bits[tile]), ++tile) {
    if (bits[tile] == 0) continue;
    expand(bits[tile], reinterpret_cast<const uint8_t*>(packed), reinterpret_cast<uint8_t*>(levels));
    levels += kTileCodes;
  }
}

TrellisExpander Expander() { return Expand; }

#endif  // HWY_SCALAR

}  // namespace
}  // namespace HWY_NAMESPACE
}  // namespace kvant
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace kvant {

HWY_EXPORT(Expander);

TrellisExpander GetTrellisExpander() { return HWY_DYNAMIC_DISPATCH(Expander)(); }

}  // namespace kvant
#endif  // HWY_ONCE
