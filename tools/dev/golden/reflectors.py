"""Orthogonal matrices as Householder vectors, written from the comment of src/codec/parts/reflectors.h."""

import numpy as np


def read(data: bytes, at: int, dim: int, count: int | None = None) -> list[np.ndarray]:
    """The vectors v of H_0, H_1, ... from the scales and tails at offset `at`; dim - 1 of them, or `count`."""
    count = dim - 1 if count is None else count
    scales = np.frombuffer(data, "<f2", count, at).astype(np.float32)
    at += 2 * count
    vectors = []
    for k in range(count):
        tail = np.frombuffer(data, "i1", dim - 1 - k, at).astype(np.float32)
        at += dim - 1 - k
        vectors.append(np.concatenate([np.zeros(k, np.float32), [np.float32(1)], scales[k] * tail]))
    return vectors


def reflect(vectors: list[np.ndarray], rows: np.ndarray) -> np.ndarray:
    """rows [n, dim] -> their coordinates, H_0 first."""
    out = rows.astype(np.float64)
    for v in vectors:
        v = v.astype(np.float64)
        out = out - np.outer(out @ v, 2 / (v @ v) * v)
    return out.astype(np.float32)


def made_up(dim: int, count: int | None = None) -> bytes:
    """Scales and tails of dim - 1 or `count` vectors of about unit length that no fit made."""
    lengths = np.arange(dim - 1, 0, -1)[:count]
    scales = 1 / (127 * np.sqrt(lengths / 3))
    tails = [(37 * i * i + 73 * i + k * k) % 255 - 127 for k, i in enumerate(map(np.arange, lengths))]
    return scales.astype("<f2").tobytes() + np.concatenate(tails).astype("i1").tobytes()
