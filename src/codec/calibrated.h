// Which bases a configured codec takes from a calibration.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "codec/codec.h"
#include "kvant/calibration.h"
#include "kvant/scheme.h"

namespace kvant {

/// Name and options that decide what a basis is, all of them, in the order of the codec's table and numbers in their
/// shortest form: what an entry of a calibration is found by. REQUIRES: the options are the codec's own.
std::string CalibrationKey(const CodecInfo& info, const CodecOptions& options);

/// Does a codec of the scheme have bases, calibrated or fitted online?
bool UsesBases(const Scheme& scheme);

/// Bases [num_bases, basis_bytes] of one layer's K or V.
using SharedBases = std::shared_ptr<const std::vector<std::byte>>;

/// The bases of `codec`, made from `options`, for `kv_heads` heads of the model's layer `layer`. Null: it has none, or
/// there is no entry and it fits its own online. Errors: NotFound when it needs an entry (with the command that makes
/// one), InvalidArgument when the entry is for other sizes.
Result<SharedBases> FindBases(const Codec& codec, const CodecOptions& options, const Calibration* maybe_calibration,
                              int layer, int kv_heads);

}  // namespace kvant
