#!/usr/bin/env bash
# The main job on the demo model. CONTEXT sets the context length in tokens.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CONTEXT="${CONTEXT:-4096}"
readonly KVANT="${KVANT:-build/release/tools/kvant}"
[[ -x "$KVANT" ]] || { echo "demo: $KVANT not found; run: make build" >&2; exit 1; }

"$KVANT" --help
echo "demo: context $CONTEXT" >&2
