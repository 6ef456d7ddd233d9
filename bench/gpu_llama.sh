#!/usr/bin/env bash
# Runs kvant with llama.cpp on a machine that has a GPU with its driver, nvcc, CMake, Ninja and Python with numpy, and no way to
# fetch anything. llama.cpp is compiled for the GPU there, out of the source that is packed here.
#
#   bench/gpu_llama.sh pack [--no-model] [FOLDER]   where kvant is built: builds it and puts all that is needed into FOLDER (default
#                                                   build/gpu_llama); --no-model leaves the demo model out (31 MB)
#   FOLDER/gpu_llama.sh build OUT                   where the GPU is: compiles llama.cpp, leaves OUT/llama-cuda.tar.xz. A run that was
#                                                   cut off goes on where it was
#   FOLDER/gpu_llama.sh run OUT ARGUMENTS...        kvant ARGUMENTS, its output also in OUT/kvant.log. Once llama-cuda.tar.xz lies in
#                                                   FOLDER, machines of the same kind need no build
#   FOLDER/gpu_llama.sh tests OUT [ARGUMENTS...]    the tests of kvant's llama.cpp part, on the same libraries
#   FOLDER/gpu_llama.sh measure OUT                 what docs/llama.md shows: OUT/*.json, five minutes on an H200
#   FOLDER/gpu_llama.sh soak OUT ARGUMENTS...       kvant_soak ARGUMENTS: random load on the GPU, compared with the CPU; MODEL first
#   FOLDER/gpu_llama.sh model FILE [ARGUMENTS...]   tools/make_random_gguf.py: a model with random weights, of any size
#
# Both machines need the same processor architecture, and the second a C library at least as new as the first. A processor that
# lacks instructions of the first cannot use the packed llama.cpp; what is built there replaces it.
#
# Environment: KVANT_GPU_WORK (default ${TMPDIR:-/tmp}/kvant-gpu; outside FOLDER, so that FOLDER may be replaced between runs),
# KVANT_GPU_ARCH (default: the GPU's, 90 where none is seen), KVANT_PART_SIZE (default 15M: a larger archive is left in parts, .00
# .01 ...), KVANT_LLAMA_CMAKE_ARGS as in get_llama.sh, KVANT_JOBS (default: all cores).
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
work="${KVANT_GPU_WORK:-${TMPDIR:-/tmp}/kvant-gpu}"
jobs="${KVANT_JOBS:-$(nproc)}"

die() { echo "gpu_llama: $*" >&2; exit 1; }

# --- where kvant is built ------------------------------------------------------------------------------------------

# The libraries that a program loads and that are not every machine's own. Those of the compiler stay behind: what is
# compiled there may need newer ones.
copy_libraries() {  # program, folder
  local name path
  ldd "$1" | awk '$2 == "=>" { print $1, $3 }' | while read -r name path; do
    [[ "$name" =~ ^lib(c|m|gcc_s|stdc\+\+|gomp|pthread|dl|rt)\.so ]] || cp -L "$path" "$2/$name"
  done
}

pack_source() {  # llama folder made by get_llama.sh, folder
  local llama="$1" folder="$2" unused=(--exclude=cpp-httplib --exclude=__pycache__) backend
  for backend in "$llama"/src/ggml/src/ggml-*/; do
    backend="$(basename "$backend")"
    [[ "$backend" =~ ^ggml-(cpu|cuda)$ ]] || unused+=("--exclude=ggml/src/$backend")
  done
  tar -C "$llama/src" "${unused[@]}" -cf - CMakeLists.txt LICENSE cmake ggml include src vendor | xz -6 -T0 >"$folder/llama-src.tar.xz"
  cp -r "$llama/src/gguf-py/gguf" "$folder/gguf"
  # The build must be the same: its flags, and the commit that host_check.cc compares.
  grep '^-D' "$llama/VERSION" >"$folder/FLAGS"
  awk 'NR == 1 { print $2 }' "$llama/VERSION" >"$folder/COMMIT"
}

pack() {
  local model=yes root="$here/.." llama folder build
  [[ "${1:-}" != --no-model ]] || { model=; shift; }
  folder="${1:-$root/build/gpu_llama}"
  build="$root/build/cuda_llama"
  llama="$("$root/tools/dev/get_llama.sh")"
  cmake -S "$root" --preset cuda_llama -DKVANT_LLAMA_DIR="$llama" >&2
  cmake --build "$build" --target kvant_cli ggml-kvant llama_tests kvant_soak -j "$jobs" >&2
  rm -rf "$folder"
  mkdir -p "$folder/lib"
  strip -o "$folder/kvant" "$build/tools/kvant"
  strip -o "$folder/libggml-kvant.so" "$build/src/llama/libggml-kvant.so"
  strip -o "$folder/llama_tests" "$build/tests/llama_tests"
  strip -o "$folder/kvant_soak" "$build/tests/soak/kvant_soak"
  copy_libraries "$build/tools/kvant" "$folder/lib"
  pack_source "$llama" "$folder"
  cat "$root"/README.md "$root"/DESIGN.md "$root"/docs/*.md >"$folder/text.txt"
  cp "$here/gpu_llama.sh" "$root/LICENSE" "$root/tools/make_random_gguf.py" "$folder"
  [[ -z "$model" ]] || cp -r "$root/models/demo-29m" "$folder"
  echo "$folder"
}

# --- where the GPU is ----------------------------------------------------------------------------------------------

gpu_architecture() {
  local found
  found="$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head -n 1 | tr -d .)" || true
  echo "${KVANT_GPU_ARCH:-${found:-90}}"
}

configure() {
  local flags
  mapfile -t flags <"$here/FLAGS"
  # shellcheck disable=SC2206  # several arguments in one variable are meant
  flags+=(-DGGML_CUDA=ON -DGGML_CUDA_NCCL=OFF "-DCMAKE_CUDA_ARCHITECTURES=$(gpu_architecture)-real" ${KVANT_LLAMA_CMAKE_ARGS:-})
  # CUDA's own libraries are found where they were when it was linked.
  cmake -S "$work/src" -B "$work/build" -G Ninja -DCMAKE_INSTALL_PREFIX="$work/install" -DCMAKE_INSTALL_RPATH_USE_LINK_PATH=ON \
    -DGIT_EXE= -DLLAMA_BUILD_COMMIT="$(cat "$here/COMMIT")" "${flags[@]}"
}

# Leaves the libraries in OUT, in parts where one file would be too large.
archive() {  # folder of libraries, OUT
  tar -C "$1" -cf - . | xz -6 -T0 >"$work/llama-cuda.tar.xz"
  rm -f "$2"/llama-cuda.tar.xz*
  if [[ -n "$(find "$work/llama-cuda.tar.xz" -size "+${KVANT_PART_SIZE:-15M}")" ]]; then
    split -d -b "${KVANT_PART_SIZE:-15M}" "$work/llama-cuda.tar.xz" "$2/llama-cuda.tar.xz."
  else
    cp "$work/llama-cuda.tar.xz" "$2"
  fi
}

build() {
  local out="$1"
  mkdir -p "$work/src" "$out"
  # The times of the sources come out of the archive, so that nothing is compiled twice.
  cmp -s "$here/llama-src.tar.xz" "$work/llama-src.tar.xz" || {
    tar -xJf "$here/llama-src.tar.xz" -C "$work/src"
    cp "$here/llama-src.tar.xz" "$work/llama-src.tar.xz"
  }
  configure >"$out/configure.log" 2>&1 || { tail -n 30 "$out/configure.log" >&2; die "CMake failed (whole log: $out/configure.log)"; }
  cmake --build "$work/build" -j "$jobs" --target llama ggml
  cmake --install "$work/build" >/dev/null
  rm -rf "$work/cuda"
  mkdir "$work/cuda"
  cp -P "$work"/install/lib/lib*.so* "$work/cuda"
  find "$work/cuda" -type f -exec strip --strip-unneeded {} +
  archive "$work/cuda" "$out"
  ls -l "$out"
}

# Unpacks the libraries that a build has left in FOLDER, unless they are there.
unpack() {
  local archives=("$here"/llama-cuda.tar.xz*) sum
  [[ -e "${archives[0]}" ]] || { [[ -d "$work/cuda" ]] || die "no llama-cuda.tar.xz in $here: gpu_llama.sh build OUT makes it"; return 0; }
  sum="$(cat "${archives[@]}" | sha256sum)"
  [[ ! -f "$work/cuda/SUM" || "$(cat "$work/cuda/SUM")" != "$sum" ]] || return 0
  rm -rf "$work/cuda"
  mkdir -p "$work/cuda"
  cat "${archives[@]}" | tar -xJ -C "$work/cuda"
  echo "$sum" >"$work/cuda/SUM"
}

# Runs a packed program; the libraries made for the GPU come before the packed ones.
run() {  # log, program, arguments
  local log="$1"
  shift
  unpack
  export LD_LIBRARY_PATH="$work/cuda:$here/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  mkdir -p "$(dirname "$log")"
  "$@" 2>&1 | tee -a "$log"
}

make_model() { PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" python3 "$here/make_random_gguf.py" "$@"; }

# Each series writes a file of its own, so that a run that is cut off leaves those before it.
measure() {  # OUT
  local out="$1" big="$work/8b.gguf" demo="${KVANT_MODEL:-$here/demo-29m/demo-29m-q8_0.gguf}" device
  [[ -f "$big" ]] || make_model "$big"
  series() {  # name, arguments of bench model
    local name="$1"
    shift
    run "$out/kvant.log" "$here/kvant" bench model "$big" --device cuda --json "$out/llama-$name.json" --progress none "$@"
  }
  for device in cpu cuda; do
    run "$out/kvant.log" "$here/kvant" eval "$demo" --text "$here/text.txt" --tokens 4096 --device "$device" --no-cache \
      --cache "k=raw v=raw" --cache kv8,kv4,kv3,kv2,int:4,int:2,kivi:4,kivi:2,turboquant:4,turboquant:3 --json "$out/llama-eval-$device.json" --progress none
  done
  series one --cache f16 --cache "k=raw v=raw" --cache kv8,kv4,kv3,kv2 --at 2048,8192,32768 --prompt-batch 2048
  series chunks-of-512 --cache f16,kv4,kv2 --at 32768 --predict 16
  series eight --cache f16,kv4,kv2 --at 256,16000 --sequences 8 --prompt-batch 2048 --predict 32
  series long --cache f16,kv4 --at 130000 --prompt-batch 2048 --predict 32
  series fit --cache f16,llama:q8_0,llama:q4_0,kv4,kv2 --fit 16GiB --prompt-batch 2048
}

verb="${1:-}"
if [[ "$verb" =~ ^(build|run|tests|soak|measure|model)$ && $# -lt 2 ]]; then verb=; fi
case "$verb" in
  pack) shift; pack "$@" ;;
  build) build "$2" ;;
  run)
    out="$2"
    shift 2
    mkdir -p "$out"
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv >"$out/gpu.csv" || die "no GPU is seen"
    run "$out/kvant.log" "$here/kvant" "$@"
    ;;
  tests)
    out="$2"
    shift 2
    run "$out/llama_tests.log" "$here/llama_tests" "$@"
    ;;
  measure) mkdir -p "$2"; measure "$2" ;;
  model) shift; make_model "$@" ;;
  soak)
    out="$2"
    shift 2
    run "$out/kvant_soak.log" "$here/kvant_soak" --text "$here/LICENSE" "$@"
    ;;
  model) shift; PYTHONPATH="$here${PYTHONPATH:+:$PYTHONPATH}" python3 "$here/make_random_gguf.py" "$@" ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
