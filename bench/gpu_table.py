#!/usr/bin/env python3
"""Prints the table of docs/cuda.md from results of gpu_attention.py.

    gpu_table.py bench/results/cuda-h200.json [SHAPE...]
    gpu_table.py bench/results/cuda-h200.json --other

A row per codec; per shape (default: the first three) the microseconds of a step and how many times faster it is than the
best fp16 attention of torch in the same run. --other: a batch of unequal lengths, prefill over a compressed prefix as a share
of fp16's speed, and encoding.
"""

import json
import sys

SHAPES = {"B8 32/8x128 N32768": "8 x 32K", "B1 32/8x128 N32768": "1 x 32K", "B1 32/8x128 N4096": "1 x 4K",
          "B1 32/8x128 N131072": "1 x 128K", "B1 32/32x128 N32768": "1 x 32K, 32 KV heads",
          "B8 32/4x128 N32768": "8 x 32K, 4 KV heads", "B8 32/8x64 N32768": "8 x 32K, head size 64",
          "B64 32/8x128 N4096": "64 x 4K", "B1 32/8x128 N1048576": "1 x 1M"}  # fmt: skip


def name(label):
    """'k=int:4 v=int:2 d=128' -> '`int:4` / `int:2`'; one name where both sides are alike."""
    if not label.startswith("k="):
        return label
    key, value = (part[2:] for part in label.split()[:2])
    return f"`{key}`" if key == value else f"`{key}` / `{value}`"


def print_other(result):
    ragged = {r["codec"]: r for r in result["ragged"]}
    prefill = {(r["codec"], r["tokens"], r["chunk"]): r["ratio"] for r in result["prefill"]}
    encoding = {(r["codec"], r["side"]): r for r in result["encoding"]}
    runs = sorted({key[1:] for key in prefill})
    print("| codec | 16 x 1K-64K, us | GB/s | "
          + " | ".join(f"prefill {chunk} on {tokens // 1024}K" for tokens, chunk in runs)
          + " | encode K, us | GB/s | V, us | GB/s |")  # fmt: skip
    print("|---" * (7 + len(runs)) + "|")
    for label, row in ragged.items():
        cells = [f"{row['us']:.0f} | {row['gb_per_s']:.0f}"]
        cells += [f"{prefill[label, *run]:.2f}" if (label, *run) in prefill else "-" for run in runs]
        for side in (0, 1):
            e = encoding[label, side]
            cells.append(f"{e['us']:.0f} | {e['bytes'] / e['us'] / 1000:.0f}")
        print(f"| {name(label)} | " + " | ".join(cells) + " |")


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        result = json.load(file)
    if sys.argv[2:] == ["--other"]:
        return print_other(result)
    times = {SHAPES.get(t["shape"], t["shape"]): t["rows"] for t in result["times"]}
    shapes = sys.argv[2:] or list(times)[:3]
    print("| codec | " + " | ".join(f"{s} | ratio" for s in shapes) + " |")
    print("|---" * (1 + 2 * len(shapes)) + "|")
    for label in times[shapes[0]]:
        rows = [times[s][label] for s in shapes]
        print(f"| {name(label)} | " + " | ".join(f"{r['us']:.1f} | {r['ratio_to_best_fp16']:.2f}" for r in rows) + " |")
    return None


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
