// Marks functions that are written once and run on the host as well as in CUDA kernels, and loops that are unrolled there,
// so that arrays indexed in them are registers or their loads are under way together.
#pragma once

#ifdef __CUDACC__
#define KVANT_HD __host__ __device__
#define KVANT_UNROLL _Pragma("unroll")
#define KVANT_PRAGMA(text) _Pragma(#text)
#define KVANT_UNROLL_BY(count) KVANT_PRAGMA(unroll count)
#else
#define KVANT_HD
#define KVANT_UNROLL
#define KVANT_UNROLL_BY(count)
#endif
