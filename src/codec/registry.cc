#include "codec/registry.h"

#include "codec/asymkv/asymkv.h"
#include "codec/calibquant/calibquant.h"
#include "codec/cq/cq.h"
#include "codec/decoquant/decoquant.h"
#include "codec/int/int.h"
#include "codec/kivi/kivi.h"
#include "codec/kvquant/kvquant.h"
#include "codec/lowrank/lowrank.h"
#include "codec/qjl/qjl.h"
#include "codec/raw/raw.h"
#include "codec/turboquant/turboquant.h"
#include "codec/vidkv/vidkv.h"

namespace kvant {
namespace {

constexpr const CodecInfo* kCodecs[] = {
    &raw::kInfo,        &integer::kInfo, &kivi::kInfo, &asymkv::kInfo,  &decoquant::kInfo, &qjl::kInfo,
    &turboquant::kInfo, &kvquant::kInfo, &cq::kInfo,   &lowrank::kInfo, &vidkv::kInfo,     &calibquant::kInfo,
};

}  // namespace

std::span<const CodecInfo* const> AllCodecs() { return kCodecs; }

}  // namespace kvant
