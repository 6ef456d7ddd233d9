#!/usr/bin/env python3
"""Prints the tables of docs/llama.md out of what `gpu_llama.sh measure` left.

    llama_table.py PREFIX     bench/results/llama-h200: reads PREFIX-one.json, PREFIX-eval-cpu.json and so on
"""

import json
import sys
from pathlib import Path


def read(prefix, name):
    path = Path(f"{prefix}-{name}.json")
    return json.loads(path.read_text()) if path.exists() else None


def table(head, rows):
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def interval(row):
    return f"{row['kl']:.5f} [{row['kl_low']:.5f}, {row['kl_high']:.5f}]"


def quality(prefix):
    """The same caches on both devices: do the intervals of KL meet?"""
    sides = [{row["cache"]: row for row in read(prefix, f"eval-{device}")["rows"]} for device in ("cpu", "cuda")]
    rows = []
    for name, cpu in list(sides[0].items())[1:]:
        gpu = sides[1][name]
        meet = cpu["kl_low"] <= gpu["kl_high"] and gpu["kl_low"] <= cpu["kl_high"]
        rows.append([f"`{name}`", interval(cpu), interval(gpu), "yes" if meet else "no",
                     f"{cpu['top1']:.3f} / {gpu['top1']:.3f}"])
    table(["cache", "KL on the CPU [95 %]", "KL on the GPU [95 %]", "meet", "top-1"], rows)


def speed(prefix, name):
    data = read(prefix, name)
    lengths = sorted({row["tokens"] for row in data["rows"]})
    caches = list(dict.fromkeys(row["cache"] for row in data["rows"]))
    cell = {(row["cache"], row["tokens"]): row for row in data["rows"]}
    head = ["cache"]
    for length in lengths:
        head += [f"{length}: ms", "x f16", "prefill, tok/s"]
    rows = []
    for cache in caches:
        row = [f"`{cache}`"]
        for length in lengths:
            at = cell[cache, length]
            row += [f"{at['decode_ms']:.2f}", f"{at['x_first']:.2f}", f"{at['prefill_tokens_per_s']:.0f}"]
        rows.append(row)
    print(f"{data['environment']['device']}, {data['sequences']} sequence(s), prompt in chunks of {data['prompt_batch']}:\n")
    table(head, rows)


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__.strip())
    quality(sys.argv[1])
    for name in ("one", "chunks-of-512", "eight", "long"):
        if read(sys.argv[1], name):
            speed(sys.argv[1], name)


main()
