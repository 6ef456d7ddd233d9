#!/usr/bin/env bash
# Checks and times the CUDA kernels on a machine that has a GPU with its driver and Python with torch, and little else.
#
#   bench/gpu_check.sh pack [FOLDER]           where kvant is built: builds the library and puts all that is needed into
#                                              FOLDER (default build/gpu): the library, what it needs, the script
#   FOLDER/gpu_check.sh run OUT [arguments]    where the GPU is: gpu_attention.py, results to OUT/gpu_attention.json
#   FOLDER/gpu_check.sh sanitize OUT           compute-sanitizer (memcheck, racecheck) over the checks
#
# Both machines need the same processor architecture, and the second a C library at least as new as the first.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"

pack() {
  local root="$here/.." folder="${1:-$here/../build/gpu}"
  cmake -S "$root" --preset cuda >&2
  cmake --build "$root/build/cuda" --target kvant_c >&2
  rm -rf "$folder"
  mkdir -p "$folder"
  cp "$root/build/cuda/src/libkvant_c.so" "$here/gpu_attention.py" "$here/gpu_check.sh" "$folder"
  cp -L "$(ldd "$folder/libkvant_c.so" | awk '/libhwy\.so/ { print $3 }')" "$folder"
  echo "$folder"
}

case "${1:-}" in
  pack) shift; pack "$@" ;;
  run)
    out="$2"
    shift 2
    nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem --format=csv | tee "$out/gpu.csv"
    python3 "$here/gpu_attention.py" --library "$here/libkvant_c.so" --json "$out/gpu_attention.json" "$@" 2>&1 |
      tee "$out/gpu_attention.log"
    ;;
  sanitize)
    for tool in memcheck racecheck; do
      compute-sanitizer --tool "$tool" --error-exitcode 1 python3 "$here/gpu_attention.py" \
        --library "$here/libkvant_c.so" --check-only --quick 2>&1 | tee "$2/$tool.log"
    done
    ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac
