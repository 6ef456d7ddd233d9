"""Golden blocks of `qjl`, written from src/codec/qjl/qjl.md."""

import numpy as np

import tiles
import uniform
from sketch import directions

GROUP_TOKENS = 32
TOKENS = 64


def outlier_channels(rows: np.ndarray, count: int) -> list[int]:
    """Channels of the largest sum of squares over rows [32, dim], ascending; the lower one where two are equal."""
    energy = (rows.astype(np.float64) ** 2).sum(axis=0)
    return sorted(sorted(range(rows.shape[1]), key=lambda c: (-energy[c], c))[:count])


def part(rows: np.ndarray, s: np.ndarray) -> tuple[bytes, bytes]:
    """Signs and norms of rows [64, dim] that are zero outside the part's channels."""
    wide = rows.astype(np.float64)
    bits = (wide @ s.T.astype(np.float64) > 0.0).astype(np.uint8)
    norms = np.sqrt((wide**2).sum(axis=1)).astype(np.float16)
    return tiles.pack(tiles.TOKEN_LANE, 1, bits), norms.tobytes()


def encode_keys(rows: np.ndarray, sketch: int, outliers: int, outlier_sketch: int) -> bytes:
    dim = rows.shape[1]
    s = directions(max(sketch, outlier_sketch if outliers else 0), dim)
    k_out = np.zeros_like(rows)
    channels = []
    for first in range(0, TOKENS, GROUP_TOKENS):
        group = slice(first, first + GROUP_TOKENS)
        mine = outlier_channels(rows[group], outliers)
        k_out[group, mine] = rows[group, mine]
        channels += mine
    streams = part(rows - k_out, s[:sketch])
    if outliers:
        streams += part(k_out, s[:outlier_sketch]) + (bytes(channels),)
    return tiles.block(streams)


def encode(rows: np.ndarray, side: str, options: dict) -> bytes:
    """rows [64, dim] float32 of layer 0; side "k" or "v"; options as in scheme text, {"outliers": "0"}."""
    if side == "v":
        return uniform.encode(rows, side, "token", int(options.get("bits", 2)), int(options.get("group", 32)))
    first = "first_" if int(options.get("first_layers", 15)) > 0 else ""
    defaults = {"sketch": 256, "first_sketch": 512, "outlier_sketch": 256, "first_outlier_sketch": 128}
    sketch, outlier_sketch = (int(options.get(n, defaults[n])) for n in (first + "sketch", first + "outlier_sketch"))
    return encode_keys(rows, sketch, int(options.get("outliers", 8)), outlier_sketch)
