# How everything of ours is compiled: one interface target, `kvant_build`, that each target links privately.

if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()

find_package(PkgConfig REQUIRED)
pkg_check_modules(HWY REQUIRED IMPORTED_TARGET libhwy)
find_package(Threads REQUIRED)
find_package(Eigen3 3.3 REQUIRED NO_MODULE) # for codec/parts, eval and tune
find_package(nlohmann_json REQUIRED) # header only, as xxhash.h: calibration files
if(KVANT_CBC)
  pkg_check_modules(CBC REQUIRED IMPORTED_TARGET cbc) # for tune
endif()
if(KVANT_TOOLS)
  find_package(CLI11 REQUIRED)
endif()

add_library(kvant_build INTERFACE)
# Two false warnings: -Wrestrict of GCC 12 about "literal" + std::string (GCC bug 105651), and clang's -Wfor-loop-analysis
# about a loop variable that a lambda changes.
target_compile_options(kvant_build INTERFACE -Wall -Wextra -Werror $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                                             $<$<CXX_COMPILER_ID:Clang>:-Wno-for-loop-analysis>)

# One Highway source becomes one copy per target, and each copy costs compile time. Built are AVX2, AVX3_DL (AVX-512 with
# VNNI and VBMI; off by default in Highway 1.0.3), NEON, and the baseline that always remains. With -march flags the
# best target is the baseline. Sanitizers multiply the time, so they see AVX2 alone.
set(disabled_targets HWY_SSSE3 HWY_SSE4 HWY_AVX3 HWY_SVE HWY_SVE2 HWY_SVE_256 HWY_SVE2_128)
if(KVANT_SANITIZE)
  list(APPEND disabled_targets HWY_AVX3_DL)
endif()
list(JOIN disabled_targets "|" disabled_targets)
if(KVANT_SCALAR_ONLY)
  target_compile_definitions(kvant_build INTERFACE HWY_COMPILE_ONLY_SCALAR)
else()
  target_compile_definitions(kvant_build INTERFACE HWY_WANT_AVX3_DL "HWY_DISABLED_TARGETS=(${disabled_targets})")
endif()

if(KVANT_SANITIZE)
  target_compile_options(kvant_build INTERFACE -fsanitize=${KVANT_SANITIZE} -fno-sanitize-recover=all
                                               -fno-omit-frame-pointer)
  target_link_options(kvant_build INTERFACE -fsanitize=${KVANT_SANITIZE})
endif()
if(KVANT_FUZZ)
  target_compile_options(kvant_build INTERFACE -fsanitize=fuzzer-no-link)
endif()

# kvant_simd_sources(<target>): flags for the target's *_simd.cc under sanitizers, whose checks of stack variables keep the
# compiler busy for minutes on unrolled kernels, where the variables are registers. GCC checks all other accesses; clang
# is slow even then and checks nothing.
function(kvant_simd_sources target)
  if(NOT KVANT_SANITIZE)
    return()
  endif()
  get_target_property(sources ${target} SOURCES)
  list(FILTER sources INCLUDE REGEX "_simd\\.cc$")
  if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
    set(flags -fno-sanitize=all)
  elseif(KVANT_SANITIZE MATCHES "address")
    set(flags --param=asan-stack=0)
  endif()
  if(sources AND flags)
    set_property(SOURCE ${sources} TARGET_DIRECTORY ${target} APPEND PROPERTY COMPILE_OPTIONS ${flags})
  endif()
endfunction()
