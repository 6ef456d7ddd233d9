#!/usr/bin/env bash
# The main job on the demo model: what does a compressed cache cost, and does the model still find what it has read?
#
#   tools/demo.sh                  4,096 tokens of this project's documentation, under three minutes on two cores
#   CONTEXT=16384 tools/demo.sh    the model's whole context
#
# Environment: CONTEXT (tokens, 1024..16384), KVANT (the program), MODEL, THREADS (default: all cores), NEEDLES (default 8).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly CONTEXT="${CONTEXT:-4096}"
readonly KVANT="${KVANT:-build/release/tools/kvant}"
readonly MODEL="${MODEL:-models/demo-29m/demo-29m-q8_0.gguf}"
readonly THREADS="${THREADS:-$(nproc)}"
readonly NEEDLES="${NEEDLES:-8}"
readonly RESERVE=96          # tokens that the questions take behind the text
readonly STOCK_CONTEXT=4096  # beyond it llama.cpp's quantised caches alone would take many minutes on a CPU
readonly FACT="Remember that the pass key of Mirolano is 70582."
readonly QUESTION="Question: What is the pass key of Mirolano? Answer:"

die() { echo "demo: $*" >&2; exit 1; }
say() { printf '\n== %s\n\n' "$*"; }

[[ -x "$KVANT" ]] || die "$KVANT not found; run: make build"
[[ -f "$MODEL" ]] || die "model $MODEL not found"
[[ "$CONTEXT" =~ ^[0-9]+$ ]] && ((CONTEXT >= 1024 && CONTEXT <= 16384)) || die "CONTEXT=$CONTEXT; accepted: 1024..16384"

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

# Documentation first, then headers, whose comments explain the code: enough for the longest context.
shopt -s nullglob
cat README.md DESIGN.md docs/*.md src/codec/*/*.md CONTRIBUTING.md include/kvant/*.h src/*/*.h src/codec/*/*.h \
  >"$folder/documentation.txt" 2>"$folder/missing" || [[ -s "$folder/documentation.txt" ]] || die "$(cat "$folder/missing")"

caches="kv4,kv3,kv2"
if ((CONTEXT <= STOCK_CONTEXT)); then
  caches="llama:q8_0,llama:q4_0,$caches"
else
  echo "demo: llama.cpp's own quantised caches are left out above $STOCK_CONTEXT tokens, they are too slow here" >&2
fi

say "$((CONTEXT - RESERVE)) tokens of this project's documentation with $NEEDLES hidden facts, read with each cache"
"$KVANT" eval "$MODEL" --text "$folder/documentation.txt" --cache "$caches" --tokens "$((CONTEXT - RESERVE))" \
  --needles "$NEEDLES" --threads "$THREADS" --no-cache

# About two thirds of the context: a token of this text is some three bytes.
LC_ALL=C awk -v limit="$((CONTEXT * 2))" -v fact="$FACT" '
  bytes + length($0) + 1 > limit { exit }
  { bytes += length($0) + 1; print }
  bytes > limit / 3 && !told { print fact; told = 1 }' "$folder/documentation.txt" >"$folder/prompt.txt"
printf '\n%s' "$QUESTION" >>"$folder/prompt.txt"

say "The same text with one fact in its first half, read into a 3-bit cache (kv3): $QUESTION"
"$KVANT" run "$MODEL" --file "$folder/prompt.txt" --cache kv3 -n 6 --context "$CONTEXT" --threads "$THREADS"
