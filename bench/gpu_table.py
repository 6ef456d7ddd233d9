#!/usr/bin/env python3
"""Prints the table of docs/cuda.md from results of gpu_attention.py.

    gpu_table.py bench/results/cuda-h200.json [SHAPE...]

A row per codec; per shape (default: the first three) the microseconds of a step and how many times faster it is than the
best fp16 attention of torch in the same run.
"""

import json
import sys

SHAPES = {"B8 32/8x128 N32768": "8 x 32K", "B1 32/8x128 N32768": "1 x 32K", "B1 32/8x128 N4096": "1 x 4K",
          "B1 32/8x128 N131072": "1 x 128K", "B1 32/32x128 N32768": "1 x 32K, 32 KV heads",
          "B8 32/4x128 N32768": "8 x 32K, 4 KV heads", "B8 32/8x64 N32768": "8 x 32K, head size 64",
          "B64 32/8x128 N4096": "64 x 4K"}  # fmt: skip


def name(label):
    """'k=int:4 v=int:2 d=128' -> '`int:4` / `int:2`'; one name where both sides are alike."""
    if not label.startswith("k="):
        return label
    key, value = (part[2:] for part in label.split()[:2])
    return f"`{key}`" if key == value else f"`{key}` / `{value}`"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        result = json.load(file)
    times = {SHAPES.get(t["shape"], t["shape"]): t["rows"] for t in result["times"]}
    shapes = sys.argv[2:] or list(times)[:3]
    print("| codec | " + " | ".join(f"{s} | ratio" for s in shapes) + " |")
    print("|---" * (1 + 2 * len(shapes)) + "|")
    for label in times[shapes[0]]:
        rows = [times[s][label] for s in shapes]
        print(f"| {name(label)} | " + " | ".join(f"{r['us']:.1f} | {r['ratio_to_best_fp16']:.2f}" for r in rows) + " |")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main()
