"""Golden blocks of `qjl`, written from src/codec/qjl/qjl.md."""

import functools

import numpy as np

import tiles
import uniform

SEED = 0x514A4C
GROUP_TOKENS = 32
TOKENS = 64


def splitmix64(seed: int, count: int) -> np.ndarray:
    """The first `count` outputs, uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def normals(count: int) -> np.ndarray:
    """Standard normals by Marsaglia's polar method."""
    raw = splitmix64(SEED, 2 * count)  # about 1.27 outputs are used per normal
    u, v = ((raw >> np.uint64(11)) * 2.0**-52 - 1.0).reshape(-1, 2).T
    s = u * u + v * v
    u, v, s = (x[(s > 0.0) & (s < 1.0)] for x in (u, v, s))
    f = np.sqrt(-2.0 * np.log(s) / s)
    return np.stack([u * f, v * f], axis=1).reshape(-1)[:count]


@functools.cache
def directions(rows: int, dim: int) -> np.ndarray:
    """S [rows, dim], float32: orthogonal within every chunk of `dim` rows."""
    s = normals(rows * dim).reshape(rows, dim)
    for first in range(0, rows, dim):
        chunk = s[first : first + dim]
        for r, row in enumerate(chunk):
            for done in chunk[:r]:
                row -= (row @ done) / dim * done
            row *= np.sqrt(dim) / np.sqrt(row @ row)
    return s.astype(np.float32)


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
