// Attention in double precision over decoded rows: what every kernel is measured against.
#pragma once

#include "attention/attention.h"

namespace kvant {

/// The same result as Attend, by decoding every page. Slow; for tests and `kvant bench`.
Status ReferenceAttend(const AttendArgs& args);

}  // namespace kvant
