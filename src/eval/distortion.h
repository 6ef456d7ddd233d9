// What a codec does to rows of numbers, without a model.
#pragma once

#include <cstdint>
#include <vector>

#include "codec/codec.h"
#include "kvant/status.h"

namespace kvant {

/// One configuration of a codec on rows of N(0,1) values.
struct Distortion {
  double bits_per_value = 0;  ///< of a block, everything in it counted
  double relative_error = 0;  ///< ||decode(encode(rows)) - rows|| / ||rows||
};

/// Encodes and decodes `blocks` blocks with the codec's built-in basis, or with one fitted to 2,048 other rows where it
/// needs a calibration. The rows are the same on every machine. Errors: those of the codec.
Result<Distortion> MeasureDistortion(const Codec& codec, int blocks, uint64_t seed);

/// `count` standard normal values from `seed`, the same on every machine up to the last bits of log and cos.
std::vector<float> NormalValues(size_t count, uint64_t seed);

}  // namespace kvant
