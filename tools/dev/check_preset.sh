#!/usr/bin/env bash
# Configures, builds and tests one preset of CMakePresets.json; the last line is ctest's verdict.
#
#   tools/dev/check_preset.sh [--build-only] PRESET [ctest arguments...]
#
# Environment: KVANT_JOBS (default: all cores). The whole output of the tests is in build/PRESET/ctest.log.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
readonly JOBS="${KVANT_JOBS:-$(nproc)}"

build_only=
if [[ "${1:-}" == --build-only ]]; then
  build_only=1
  shift
fi
[[ $# -ge 1 ]] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2; }
readonly PRESET="$1"
shift

# Two runs on one build folder take turns.
mkdir -p "build/$PRESET"
exec 9>"build/$PRESET/.lock"
flock 9

# make's own job flags are meant for make.
unset MAKEFLAGS MAKELEVEL MFLAGS

echo "== $PRESET: configure and build (-j$JOBS)"
cmake --preset "$PRESET" --log-level=NOTICE >/dev/null
cmake --build --preset "$PRESET" -j "$JOBS" -- --quiet
[[ -z "$build_only" ]] || exit 0

echo "== $PRESET: test"
log="build/$PRESET/ctest.log"
result=0
ctest --preset "$PRESET" -j "$JOBS" "$@" >"$log" 2>&1 || result=$?
# On success what was skipped and why the rest is quiet; on failure what the failed tests have said.
if ((result)); then
  grep -v -E '^ *[0-9]+/[0-9]+ Test +#.* Passed |^ +Start +[0-9]+: ' "$log" || true
else
  grep -E '\*\*\*Skipped|^SKIPPED' "$log" || true
fi
verdict="$(grep -E '^[0-9]+% tests passed, [0-9]+ tests? failed out of [0-9]+' "$log" | tail -n 1)"
echo "$(grep -E '^Total Test time' "$log" | tail -n 1) ($log)"
echo "${verdict:-$(tail -n 1 "$log")}"
exit "$result"
