#!/usr/bin/env python3
"""Draws what caches cost and keep, from the JSON of `kvant eval --json`: divergence against effective bits.

    kvant eval MODEL --text FILE --cache all --json eval.json
    tools/dev/plot_codecs.py eval.json -o docs/codecs.svg

Several files are drawn together; they should be of one model, text and length. Caches on the line are those that no other one
beats in both numbers. The SVG has a transparent background and follows the reader's light or dark colour scheme.
"""

import argparse
import io
import json
import sys
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt  # noqa: E402

MARKERS = "osD^vPXp*<>hd8"
# Readable on white and on black; told apart in print by the markers.
COLOURS = ["#4477aa", "#ee6677", "#228833", "#cc9911", "#3399bb", "#aa3377", "#888888", "#dd7722", "#6655cc", "#449988"]
INK = "#010203"  # a colour that nothing else has; the style below replaces it
STYLE = """<style>
  .ink { color: #222 }
  @media (prefers-color-scheme: dark) { .ink { color: #ddd } }
</style>"""


def codec_name(row):
    """Of both sides, "kivi + int" where they differ; llama.cpp's own types have one name."""
    if not row["scheme"]:
        return "llama.cpp"
    sides = dict(word.split("=", 1) for word in row["scheme"].split())
    key, value = (sides[side].split(":")[0] for side in "kv")
    return key if key == value else f"{key} + {value}"


def read_points(paths):
    """[(codec, cache, bits, KL)] of all rows but the reference, whose divergence is zero by definition."""
    points = []
    for path in paths:
        try:
            rows = json.loads(Path(path).read_text())["rows"]
            points += [(codec_name(r), r["cache"], r["memory"]["bits_per_value"], r["kl"]) for r in rows if r["kl"] > 0]
        except (OSError, ValueError, KeyError, TypeError) as error:
            sys.exit(f"plot_codecs: {path} is not the JSON of kvant eval: {error!r}")
    if not points:
        sys.exit("plot_codecs: no cache but the reference in " + ", ".join(map(str, paths)))
    return points


def pareto(points):
    """The points that no other one beats in bits and divergence, by rising bits."""
    front = []
    for point in sorted(points, key=lambda p: (p[2], p[3])):
        if not front or point[3] < front[-1][3]:
            front.append(point)
    return front


def draw(points):
    """The SVG's text."""
    plt.rcParams.update({
        "svg.fonttype": "none", "svg.hashsalt": "kvant", "font.family": "sans-serif", "font.size": 10,
        "text.color": INK, "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK,
    })  # fmt: skip
    figure, axes = plt.subplots(figsize=(8, 5.2))
    axes.set_yscale("log")
    axes.set_xlabel("effective bits per value, everything counted")
    axes.set_ylabel("KL divergence from the fp16 cache, nats")
    front = pareto(points)
    axes.plot([p[2] for p in front], [p[3] for p in front], color=INK, linewidth=1, alpha=0.5, zorder=1, label="Pareto front")
    for i, (codec, group) in enumerate(by_codec(points).items()):
        axes.scatter([p[2] for p in group], [p[3] for p in group], s=42, marker=MARKERS[i % len(MARKERS)],
                     color=COLOURS[i % len(COLOURS)], edgecolors=INK, linewidths=[0.9 if p in front else 0 for p in group],
                     label=codec, zorder=2)  # fmt: skip
    axes.grid(True, which="major", color=INK, alpha=0.12, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper right")
    out = io.StringIO()
    figure.savefig(out, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None})
    plt.close(figure)
    return themed(out.getvalue())


def by_codec(points):
    groups = defaultdict(list)
    for point in sorted(points):
        groups[point[0]].append(point)
    return groups


def themed(svg):
    """The ink becomes the colour of the text, which the style sets for light and dark."""
    head, body = svg.split("<defs>", 1)
    head = head.replace("<svg ", '<svg class="ink" ', 1)
    return head + STYLE + "\n <defs>" + body.replace(INK, "currentColor")


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("json", nargs="+", help="files of kvant eval --json")
    parser.add_argument("-o", "--output", required=True, help="SVG file to write")
    options = parser.parse_args(arguments)
    Path(options.output).write_text(draw(read_points(options.json)))


if __name__ == "__main__":
    main()
