"""The randomised Hadamard transform, written from the comment of src/codec/parts/hadamard.h."""

import numpy as np


def signs(first: int, count: int) -> np.ndarray:
    h = (np.arange(first + 1, first + count + 1, dtype=np.uint64) * 0x9E3779B1) % 2**32
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) % 2**32
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) % 2**32
    return np.where(h >> 31, -1, 1).astype(np.float32)


def walsh(y: np.ndarray) -> np.ndarray:
    n = y.shape[1]
    stride = 1
    while stride < n:
        pairs = y.reshape(len(y), n // (2 * stride), 2, stride)
        y = np.stack([pairs[:, :, 0] + pairs[:, :, 1], pairs[:, :, 0] - pairs[:, :, 1]], axis=2).reshape(len(y), n)
        stride *= 2
    return y


def mix(y: np.ndarray) -> np.ndarray:
    dim = y.shape[1]
    p = 1 << (dim.bit_length() - 1)
    n = np.float32(1) / np.sqrt(np.float32(p))
    y = y.copy()
    y[:, :p] = walsh(y[:, :p] * (signs(0, p) * n))
    y[:, p:] *= signs(p, dim - p)
    if p < dim:
        y[:, : dim - p] *= signs(dim, dim - p)
        y[:, dim - p :] = walsh(y[:, dim - p :] * (signs(2 * dim - p, p) * n))
    return y
