// The list of codecs of this program. It takes the place of src/codec/registry.cc, of which the library has one object:
// the linker leaves that out where a program brings its own list.
#include "codec/registry.h"

#include "codec/raw/raw.h"
#include "sign.h"

namespace kvant {
namespace {

constexpr const CodecInfo* kCodecs[] = {&raw::kInfo, &sign::kInfo};  // raw: open pages are its blocks

}  // namespace

std::span<const CodecInfo* const> AllCodecs() { return kCodecs; }

}  // namespace kvant
