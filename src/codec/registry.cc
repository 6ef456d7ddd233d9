#include "codec/registry.h"

#include "codec/cq/cq.h"
#include "codec/decoquant/decoquant.h"
#include "codec/int/int.h"
#include "codec/kivi/kivi.h"
#include "codec/qjl/qjl.h"
#include "codec/raw/raw.h"

namespace kvant {
namespace {

constexpr const CodecInfo* kCodecs[] = {
    &raw::kInfo, &integer::kInfo, &kivi::kInfo, &decoquant::kInfo, &qjl::kInfo, &cq::kInfo,
};

}  // namespace

std::span<const CodecInfo* const> AllCodecs() { return kCodecs; }

}  // namespace kvant
