#!/usr/bin/env bash
# Builds libllama and ggml as shared libraries, once, into the kvant cache folder, and prints that folder.
#
#   tools/dev/get_llama.sh                  the pinned llama.cpp, out of llama-cpp-python's source distribution
#   tools/dev/get_llama.sh --source DIR     your own llama.cpp tree (or KVANT_LLAMA_SOURCE_DIR=DIR)
#   tools/dev/get_llama.sh --sdist          only fetch the source distribution and print its path
#
# The folder holds lib/ (libllama, libggml, libggml-base, libggml-cpu), include/ (public headers), src (the whole
# source tree, also for the private ggml/src/*.h) and VERSION. It is built in a temporary folder and renamed at the
# end, so it is either complete or absent; concurrent runs wait for each other. With the folder present the script
# does nothing. Progress goes to stderr, stdout is the folder alone.
#
# Environment: KVANT_CACHE (default ${XDG_CACHE_HOME:-~/.cache}/kvant), KVANT_JOBS (default: all cores), CC, CXX,
# KVANT_LLAMA_CMAKE_ARGS (further CMake arguments, for example -DGGML_CUDA=ON), KVANT_PYTHON (default python3).
set -euo pipefail

readonly VERSION=0.3.36
readonly SHA256=832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e
readonly SDIST="llama_cpp_python-$VERSION.tar.gz"
readonly CACHE="${KVANT_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kvant}"
readonly JOBS="${KVANT_JOBS:-$(nproc)}"
readonly PYTHON="${KVANT_PYTHON:-python3}"
CC="${CC:-cc}"
CXX="${CXX:-c++}"

# What the build is made of. BUILD_SHARED_LIBS: the plug-in has to meet the host's own copy of libggml-base.
FLAGS=(
  -DCMAKE_BUILD_TYPE=Release
  -DBUILD_SHARED_LIBS=ON
  -DGGML_NATIVE=ON
  -DLLAMA_BUILD_COMMON=OFF
  -DLLAMA_BUILD_TESTS=OFF
  -DLLAMA_BUILD_TOOLS=OFF
  -DLLAMA_BUILD_EXAMPLES=OFF
  -DLLAMA_BUILD_SERVER=OFF
  -DLLAMA_BUILD_APP=OFF
  -DLLAMA_OPENSSL=OFF
  -DGGML_CCACHE=OFF
  -DCMAKE_INSTALL_LIBDIR=lib
  -DCMAKE_INSTALL_INCLUDEDIR=include
  "-DCMAKE_INSTALL_RPATH=\$ORIGIN"
)

say() { echo "get_llama: $*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null || die "$1 not found; run tools/dev/setup.sh"; }

# Runs the rest of the command line with its output in a log file; shows the end of the log when it fails.
logged() {
  local log="$1"; shift
  "$@" >>"$log" 2>&1 || { tail -n 30 "$log" >&2; die "failed: $* (whole log: $log)"; }
}

# --- fetch ---------------------------------------------------------------------------------------------------------

have_sdist() { [[ -f "$1" ]] && echo "$SHA256  $1" | sha256sum --check --status; }

# Sets sdist to the checked source distribution.
fetch_sdist() {
  sdist="$CACHE/download/$SDIST"
  have_sdist "$sdist" && return
  mkdir -p "$CACHE/download"
  exec 8>"$CACHE/download/.lock"
  flock 8
  if ! have_sdist "$sdist"; then
    local tmp
    tmp="$(mktemp -d "$CACHE/download/.tmp-XXXXXX")"
    say "fetching $SDIST (76 MB)"
    "$PYTHON" -m venv "$tmp/venv" >&2 || die "$PYTHON -m venv failed; run tools/dev/setup.sh"
    logged "$CACHE/download/pip.log" "$tmp/venv/bin/pip" download --disable-pip-version-check --no-deps \
      --no-binary llama-cpp-python --dest "$tmp" "llama-cpp-python==$VERSION"
    have_sdist "$tmp/$SDIST" || die "$SDIST does not have the expected SHA-256 $SHA256"
    mv "$tmp/$SDIST" "$sdist"
    rm -rf "$tmp"
  fi
  flock -u 8
}

# Sets src to the unpacked llama.cpp of the source distribution: what the build needs and what is worth reading.
unpack_sdist() {
  src="$CACHE/llama-$VERSION-src"
  [[ -f "$src/COMMIT" ]] && return
  fetch_sdist
  exec 7>"$CACHE/.llama-src.lock"
  flock 7
  if [[ ! -f "$src/COMMIT" ]]; then
    local tmp top
    tmp="$(mktemp -d "$CACHE/.tmp-src-XXXXXX")"
    top="llama_cpp_python-$VERSION"
    tar -xzf "$sdist" -C "$tmp" --no-same-owner --wildcards "$top/.git/modules/vendor/llama.cpp/HEAD" \
      "$top"/vendor/llama.cpp/{CMakeLists.txt,LICENSE,AUTHORS,README.md,cmake,common,docs,ggml,gguf-py,include,src,vendor}
    local tree="$tmp/$top/vendor/llama.cpp"
    cut -c1-9 "$tmp/$top/.git/modules/vendor/llama.cpp/HEAD" >"$tree/COMMIT"
    rm -rf "$src"
    mv "$tree" "$src"
    rm -rf "$tmp"
  fi
  flock -u 7
}

# --- build ---------------------------------------------------------------------------------------------------------

# The compiler's version and what it makes of -march=native here: the libraries do not run on a lesser CPU.
native_macros() {  # compiler, language
  "$1" -march=native -x "$2" -dM -E /dev/null 2>/dev/null | sort || { "$1" --version | head -n 1; uname -m; }
}

tree_state() { find "$1/ggml" "$1/src" "$1/include" -type f -printf '%P %s %T@\n' | sort; }

key_of() {  # src
  {
    printf '%s\n' "${FLAGS[@]}"
    native_macros "$CC" c
    native_macros "$CXX" c++
    if [[ -n "$own_source" ]]; then echo "$own_source"; tree_state "$own_source"; else echo "$SHA256"; fi
  } | sha256sum | cut -c1-12
}

tree_hash() {  # src; stands for the commit of a tree without git, so that host and plug-in still know each other
  (cd "$1" && find ggml include src -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum | cut -c1-9)
}

build() {  # src, folder
  local src="$1" folder="$2" tmp log
  rm -rf "$CACHE"/.tmp-"$(basename "$folder")"-*
  tmp="$(mktemp -d "$CACHE/.tmp-$(basename "$folder")-XXXXXX")"
  log="$CACHE/$(basename "$folder").log"
  : >"$log"
  say "building libllama in $folder (about 4 minutes on 2 cores, once)"
  # The commit is given, not asked of git: there might be no git here, or one that answers for another repository.
  logged "$log" cmake -S "$src" -B "$tmp/build" -G Ninja -DCMAKE_C_COMPILER="$CC" -DCMAKE_CXX_COMPILER="$CXX" \
    -DCMAKE_INSTALL_PREFIX="$tmp/install" -DGIT_EXE= -DLLAMA_BUILD_COMMIT="$commit" "${FLAGS[@]}"
  logged "$log" cmake --build "$tmp/build" -j "$JOBS" --target llama ggml
  logged "$log" cmake --install "$tmp/build"
  ln -s "$src" "$tmp/install/src"
  { echo "llama.cpp $commit"; printf '%s\n' "${FLAGS[@]}"; "$CXX" --version | head -n 1; } >"$tmp/install/VERSION"
  rm -rf "$folder"
  mv "$tmp/install" "$folder"
  rm -rf "$tmp"
}

own_source="${KVANT_LLAMA_SOURCE_DIR:-}"
only_sdist=
while (($#)); do
  case "$1" in
    --source) [[ $# -ge 2 ]] || die "--source needs a folder"; own_source="$2"; shift 2 ;;
    --sdist) only_sdist=1; shift ;;
    *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
  esac
done

mkdir -p "$CACHE"
if [[ -n "$only_sdist" ]]; then
  fetch_sdist
  echo "$sdist"
  exit
fi

need "$CC"; need "$CXX"; need cmake; need ninja; need flock
# shellcheck disable=SC2206  # several arguments in one variable are meant
FLAGS+=(${KVANT_LLAMA_CMAKE_ARGS:-})
if [[ -n "$own_source" ]]; then
  [[ -d "$own_source" ]] || die "no such folder: $own_source"
  own_source="$(cd "$own_source" && pwd)"
  [[ -f "$own_source/ggml/src/ggml-backend-impl.h" ]] || die "$own_source is not a llama.cpp source tree"
  src="$own_source"
  name=own
  commit="$(git -C "$src" rev-parse --short HEAD 2>/dev/null || tree_hash "$src")"
else
  unpack_sdist
  name="$VERSION"
  commit="$(cat "$src/COMMIT")"
fi

folder="$CACHE/llama-$name-$(key_of)"
if [[ ! -f "$folder/VERSION" ]]; then
  exec 9>"$CACHE/.$(basename "$folder").lock"
  flock 9
  [[ -f "$folder/VERSION" ]] || build "$src" "$folder"
fi
echo "$folder"
