#!/usr/bin/env bash
# Makes the Python environment of the tests, once, in the kvant cache folder, and prints the path of its python.
#
#   tools/dev/get_python.sh LLAMA_DIR    with llama_cpp (llama-cpp-python) running on the libraries of LLAMA_DIR, a folder
#                                        that get_llama.sh has printed; nothing of llama.cpp is compiled again
#   tools/dev/get_python.sh none         without llama_cpp
#
# Environment: KVANT_CACHE and KVANT_PYTHON as in get_llama.sh. The system's own Python is never changed.
set -euo pipefail

readonly CACHE="${KVANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvant}"
readonly PYTHON="${KVANT_PYTHON:-python3}"
HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly HERE

die() { echo "get_python: $*" >&2; exit 1; }

[[ $# -eq 1 ]] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
readonly LLAMA="$1"
[[ "$LLAMA" == none || -f "$LLAMA/lib/libllama.so" ]] || die "$LLAMA has no lib/libllama.so"
command -v flock >/dev/null || die "flock not found; run tools/dev/setup.sh"

key="$({ cat "$HERE/requirements.txt"; "$PYTHON" -VV; echo "$LLAMA"; } | sha256sum | cut -c1-12)"
venv="$CACHE/venv-$key"

install() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@" >&2; }

build() {
  echo "get_python: making $venv" >&2
  rm -rf "$venv"
  "$PYTHON" -m venv "$venv" >&2 || die "$PYTHON -m venv failed; run tools/dev/setup.sh"
  install -r "$HERE/requirements.txt"
  if [[ "$LLAMA" != none ]]; then
    # LLAMA_BUILD=OFF installs the Python files alone. One half of the package (_ggml.py) looks for its libraries in
    # llama_cpp/lib and nowhere else, so this folder is a link to ours; LLAMA_CPP_LIB_PATH is then not needed.
    CMAKE_ARGS=-DLLAMA_BUILD=OFF install --no-deps "$("$HERE/get_llama.sh" --sdist)"
    local package
    package="$(echo "$venv"/lib/python3*/site-packages/llama_cpp)"
    [[ -d "$package" ]] || die "llama-cpp-python did not install into $venv"
    rm -rf "${package:?}/lib"
    ln -s "$LLAMA/lib" "$package/lib"
    "$venv/bin/python" -c 'import llama_cpp; llama_cpp.llama_print_system_info()' >&2 ||
      die "llama_cpp does not load the libraries in $LLAMA/lib"
  fi
  touch "$venv/complete"
}

if [[ ! -f "$venv/complete" ]]; then
  mkdir -p "$CACHE"
  exec 9>"$CACHE/.venv-$key.lock"
  flock 9
  [[ -f "$venv/complete" ]] || build
fi
echo "$venv/bin/python"
