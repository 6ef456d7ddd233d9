// Reads options one after the other: KVANT_TRY(TakeOption(reader.GetInt(...), &options.bits)).
#pragma once

#include <type_traits>

#include "kvant/status.h"

namespace kvant {

/// Stores the value of an option as the type of its destination (an int, an enum, a double), or returns its error.
template <typename T, typename Out>
Status TakeOption(const Result<T>& result, Out* out) {
  if (!result.ok()) return result.status();
  *out = static_cast<Out>(*result);
  return Status::Ok();
}

}  // namespace kvant
