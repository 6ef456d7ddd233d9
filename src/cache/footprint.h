// Adds up what the sequences of a store hold, shared pages once.
#pragma once

#include <span>

#include "cache/kv_store.h"
#include "cache/sequence.h"
#include "cache/store_format.h"

namespace kvant {

Footprint MeasureFootprint(const StoreFormat& format, std::span<const Sequence> sequences);

}  // namespace kvant
