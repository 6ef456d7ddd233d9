#!/usr/bin/env bash
# Makes a Debian 12 machine ready to build and test kvant: packages, libllama, Python environment. Quick when all is there.
#
#   tools/dev/setup.sh              everything
#   tools/dev/setup.sh --no-llama   without libllama (the no_llama and scalar-only presets)
#
# Packages are installed with apt-get as root or through sudo; without either the script prints the command to run.
# libllama and the Python environment go to the cache folder, see get_llama.sh and get_python.sh.
set -euo pipefail

HERE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
readonly HERE
readonly PACKAGES=(
  g++ cmake ninja-build pkg-config ccache
  libhwy-dev libgtest-dev libbenchmark-dev libcli11-dev nlohmann-json3-dev libeigen3-dev libutfcpp-dev libxxhash-dev
  coinor-libcbc-dev
  python3 python3-venv ca-certificates util-linux
)

die() { echo "setup: $*" >&2; exit 1; }

missing_packages() {
  local package here
  here="$(dpkg --print-architecture)"
  for package in "${PACKAGES[@]}"; do
    # A package may be there for other architectures as well.
    dpkg-query -W -f='${Architecture} ${db:Status-Status}\n' "$package" 2>/dev/null |
      grep -qxE "($here|all) installed" || echo "$package"
  done
}

install_packages() {
  if ! command -v dpkg-query >/dev/null; then
    echo "setup: not a Debian system; needed are the equivalents of: ${PACKAGES[*]}" >&2
    return
  fi
  local missing root=()
  mapfile -t missing < <(missing_packages)
  ((${#missing[@]})) || return 0
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || die "please run: sudo apt-get install -y --no-install-recommends ${missing[*]}"
    root=(sudo -n)
  fi
  echo "setup: installing ${missing[*]}" >&2
  "${root[@]}" apt-get update -qq >&2 || die "apt-get update failed"
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 ||
    die "apt-get could not install: ${missing[*]}"
}

llama=yes
case "${1:-}" in
  "") ;;
  --no-llama) llama=none ;;
  *) sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac

install_packages
[[ "$llama" == none ]] || llama="$("$HERE/get_llama.sh")"
python="$("$HERE/get_python.sh" "$llama")"
echo "setup: ready (libllama: $llama, python: $python)" >&2
