// Checks for our own bugs. Bad input is a Status, never a check.
#pragma once

#include <cstdio>
#include <cstdlib>

namespace kvant {

/// Called when a check fails; must not return. The host program may replace it.
using CheckHandler = void (*)(const char* file, int line, const char* condition);

inline CheckHandler& GlobalCheckHandler() {
  static CheckHandler handler = [](const char* file, int line, const char* condition) {
    std::fprintf(stderr, "%s:%d: kvant check failed: %s\n", file, line, condition);
    std::abort();
  };
  return handler;
}

}  // namespace kvant

#define KVANT_CHECK(cond) ((cond) ? static_cast<void>(0) : ::kvant::GlobalCheckHandler()(__FILE__, __LINE__, #cond))

#ifdef NDEBUG
#define KVANT_DCHECK(cond) static_cast<void>(sizeof(cond))
#else
#define KVANT_DCHECK(cond) KVANT_CHECK(cond)
#endif
