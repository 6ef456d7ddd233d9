// The kernels of TileKernels one by one: each is a translation unit of its own, for the sake of compile time.
#pragma once

#include "codec/parts/tile_kernels.h"

namespace kvant {

struct TileReaders {
  decltype(TileKernels::score) score;
  bool reads_trellis;
};
using TileAccumulate = decltype(TileKernels::accumulate);
struct TilePackers {
  decltype(TileKernels::pack) pack;
  decltype(TileKernels::unpack) unpack;
};

TileReaders GetTileReaders();
TileAccumulate GetTileAccumulate();
TilePackers GetTilePackers();

}  // namespace kvant
