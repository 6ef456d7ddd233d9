"""Random directions, written from the comment of src/codec/parts/sketch.h."""

import functools

import numpy as np

SKETCH_SEED = 0x514A4C


def splitmix64(seed: int, count: int) -> np.ndarray:
    """The first `count` outputs, uint64."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def normals(count: int, seed: int) -> np.ndarray:
    """Standard normals by Marsaglia's polar method."""
    raw = splitmix64(seed, 2 * count)  # about 1.27 outputs are used per normal
    u, v = ((raw >> np.uint64(11)) * 2.0**-52 - 1.0).reshape(-1, 2).T
    s = u * u + v * v
    u, v, s = (x[(s > 0.0) & (s < 1.0)] for x in (u, v, s))
    f = np.sqrt(-2.0 * np.log(s) / s)
    return np.stack([u * f, v * f], axis=1).reshape(-1)[:count]


@functools.cache
def directions(rows: int, dim: int, seed: int = SKETCH_SEED, orthogonal: bool = True) -> np.ndarray:
    """S [rows, dim], float32; orthogonal: within every chunk of `dim` rows, each of length sqrt(dim)."""
    s = normals(rows * dim, seed).reshape(rows, dim)
    for first in range(0, rows if orthogonal else 0, dim):
        chunk = s[first : first + dim]
        for r, row in enumerate(chunk):
            for done in chunk[:r]:
                row -= (row @ done) / dim * done
            row *= np.sqrt(dim) / np.sqrt(row @ row)
    return s.astype(np.float32)
