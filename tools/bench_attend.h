// Times the fused decode attention over caches larger than any processor cache, against 16-bit kernels of the same run.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "kvant/status.h"

namespace kvant {

struct BenchAttendOptions {
  std::vector<std::string> schemes;
  int kv_heads = 8;
  int heads_per_kv = 4;
  int dim = 128;
  size_t fp16_bytes = size_t{512} << 20;  ///< size of the cache at 16 bits
  int threads = 2;
  int repeats = 9;
};

/// The row of llama.cpp's own attention over an f16 cache.
inline constexpr const char* kGgmlScheme = "ggml f16";

struct BenchAttendRow {
  std::string scheme;
  double bytes_per_token = 0;  ///< K and V of one token and KV head, everything in the pages counted
  double error = 0;            ///< relative RMS error against double-precision attention over the decoded cache
  double median_ms = 0, p10_ms = 0, p90_ms = 0;
  double ns_per_token = 0;  ///< per token and KV head
  double gb_per_s = 0;
  double x_raw = 1;  ///< speed relative to raw: median over pairs of runs, one right after the other
  bool is_16_bit = false;
};

struct BenchAttendReport {
  std::string cpu;
  std::string simd_target;
  int64_t tokens = 0;
  double read_gb_per_s = 0;          ///< plain reading by the same threads
  std::vector<BenchAttendRow> rows;  ///< raw first, then ggml's where this build has it, then the schemes
};

/// Refuses to time a kernel whose error exceeds 2e-3 (the contract of codec.h) with Internal.
Result<BenchAttendReport> BenchAttend(const BenchAttendOptions& options);

}  // namespace kvant
