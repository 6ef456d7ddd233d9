// Marks functions that are written once and run on the host as well as in CUDA kernels, and loops that are unrolled there,
// so that arrays indexed in them are registers.
#pragma once

#ifdef __CUDACC__
#define KVANT_HD __host__ __device__
#define KVANT_UNROLL _Pragma("unroll")
#else
#define KVANT_HD
#define KVANT_UNROLL
#endif
