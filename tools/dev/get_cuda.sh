#!/usr/bin/env bash
# Installs a CUDA compiler and runtime, once, into the kvant cache folder, and prints that folder: KVANT_CUDA_DIR of CMake.
# Enough to build the kernels; running them needs a GPU with its driver.
#
#   tools/dev/get_cuda.sh
#
# The parts are NVIDIA's packages on PyPI, at fixed versions. The folder is made under a temporary name and renamed at the
# end, so it is complete or absent. Progress goes to stderr.
#
# Environment: KVANT_CACHE and KVANT_PYTHON as in get_llama.sh.
set -euo pipefail

readonly PACKAGES=(
  nvidia-cuda-nvcc==13.0.88
  nvidia-cuda-crt==13.0.88
  nvidia-nvvm==13.0.88
  nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85
)
readonly CACHE="${KVANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvant}"
readonly PYTHON="${KVANT_PYTHON:-python3}"

die() { echo "get_cuda: $*" >&2; exit 1; }

[[ $# -eq 0 ]] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
[[ "$(uname -m)" == x86_64 ]] || die "there are packages for x86_64 here, not for $(uname -m)"
command -v flock >/dev/null || die "flock not found; run tools/dev/setup.sh"

key="$(printf '%s\n' "${PACKAGES[@]}" | sha256sum | cut -c1-12)"
folder="$CACHE/cuda-$key"

build() {
  local tmp
  echo "get_cuda: making $folder" >&2
  rm -rf "$folder" "$CACHE"/.tmp-cuda-*
  tmp="$(mktemp -d "$CACHE/.tmp-cuda-XXXXXX")"
  "$PYTHON" -m venv "$tmp/venv" >&2 || die "$PYTHON -m venv failed; run tools/dev/setup.sh"
  "$tmp/venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --target "$tmp/site" \
    "${PACKAGES[@]}" >&2
  [[ -x "$tmp/site/nvidia/cu13/bin/nvcc" ]] || die "the packages hold no nvidia/cu13/bin/nvcc"
  [[ -e "$tmp/site/nvidia/cu13/lib64" ]] || ln -s lib "$tmp/site/nvidia/cu13/lib64"  # where nvcc looks
  printf '%s\n' "${PACKAGES[@]}" >"$tmp/site/nvidia/cu13/PACKAGES"
  mv "$tmp/site/nvidia/cu13" "$folder"
  rm -rf "$tmp"
}

if [[ ! -f "$folder/PACKAGES" ]]; then
  mkdir -p "$CACHE"
  exec 9>"$CACHE/.cuda-$key.lock"
  flock 9
  [[ -f "$folder/PACKAGES" ]] || build
fi
echo "$folder"
