# CUDA kernels. KVANT_CUDA is AUTO (built when a CUDA compiler is found), ON or OFF; afterwards KVANT_HAS_CUDA says what it
# came to. tools/dev/get_cuda.sh fetches a compiler for machines without one: no GPU and no driver are needed to build.
set(KVANT_HAS_CUDA FALSE)
if(KVANT_CUDA STREQUAL "OFF" OR NOT KVANT_CUDA)
  return()
endif()
if(KVANT_CUDA_DIR)
  set(CMAKE_CUDA_COMPILER "${KVANT_CUDA_DIR}/bin/nvcc" CACHE FILEPATH "CUDA compiler")
endif()
set(CMAKE_CUDA_ARCHITECTURES OFF) # -gencode below: the suffix "a" is newer than this CMake may be
include(CheckLanguage)
check_language(CUDA)
if(NOT CMAKE_CUDA_COMPILER)
  if(KVANT_CUDA STREQUAL "AUTO")
    message(STATUS "CUDA kernels: no, there is no CUDA compiler (tools/dev/get_cuda.sh fetches one)")
    return()
  endif()
  message(FATAL_ERROR "KVANT_CUDA=ON: no CUDA compiler found; set KVANT_CUDA_DIR to the folder that tools/dev/get_cuda.sh prints, or "
                      "configure with -DKVANT_CUDA=OFF")
endif()
enable_language(CUDA)
if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION) # CMake 3.25 does not know it of nvcc 13
  set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION "-std=c++20")
  set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION "-std=c++20")
endif()
set(KVANT_HAS_CUDA TRUE)
if(CCACHE_PROGRAM AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER "${CCACHE_PROGRAM}")
endif()
get_filename_component(cuda_bin "${CMAKE_CUDA_COMPILER}" REALPATH)
get_filename_component(cuda_bin "${cuda_bin}" DIRECTORY)
find_library(KVANT_CUDART cudart_static HINTS "${cuda_bin}/../lib64" "${cuda_bin}/../lib" REQUIRED)
message(STATUS "CUDA kernels: yes, with ${CMAKE_CUDA_COMPILER} ${CMAKE_CUDA_COMPILER_VERSION}")

# kvant_cuda_sources(<target>): the .cu files of src/, compiled for sm_80 and sm_90a, into the target.
function(kvant_cuda_sources target)
  file(GLOB sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/src/cuda/*.cu" "${PROJECT_SOURCE_DIR}/src/device_cache/*.cu")
  add_library(kvant_kernels OBJECT ${sources})
  set_target_properties(kvant_kernels PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden)
  target_include_directories(kvant_kernels PRIVATE "${PROJECT_SOURCE_DIR}/include" "${PROJECT_SOURCE_DIR}/src")
  target_compile_options(kvant_kernels PRIVATE --expt-relaxed-constexpr -Werror all-warnings
                                               "SHELL:-gencode arch=compute_80,code=sm_80"
                                               "SHELL:-gencode arch=compute_90a,code=sm_90a")
  target_sources(${target} PRIVATE "$<TARGET_OBJECTS:kvant_kernels>")
  target_link_libraries(${target} PUBLIC "$<BUILD_INTERFACE:${KVANT_CUDART}>" "$<INSTALL_INTERFACE:${KVANT_CUDART}>"
                                         ${CMAKE_DL_LIBS} rt)
endfunction()
