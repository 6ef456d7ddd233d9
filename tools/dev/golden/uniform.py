"""Blocks of uniform groups, written from the byte tables of src/codec/int/int.md and src/codec/kivi/kivi.md."""

import numpy as np

import tiles


def grouped(rows: np.ndarray, axis: str, group: int) -> np.ndarray:
    """rows [64, dim] -> [scales in their order, values of the group]."""
    dim = rows.shape[1]
    if axis == "channel":  # scales are [64 / group][dim]
        return rows.reshape(64 // group, group, dim).transpose(0, 2, 1).reshape(-1, group)
    return rows.reshape(64, dim // group, group).transpose(1, 0, 2).reshape(-1, group)  # [dim / group][64]


def ungrouped(values: np.ndarray, axis: str, group: int, dim: int) -> np.ndarray:
    if axis == "channel":
        return values.reshape(64 // group, dim, group).transpose(0, 2, 1).reshape(64, dim)
    return values.reshape(dim // group, 64, group).transpose(1, 0, 2).reshape(64, dim)


def encode(rows: np.ndarray, side: str, axis: str, bits: int, group: int) -> bytes:
    """side is "k" or "v". All arithmetic is float32, every operation rounded on its own."""
    values = grouped(rows.astype(np.float32), axis, group)
    top = np.float32(2**bits - 1)
    mins = (values.min(axis=1) + np.float32(0)).astype(np.float16)
    low = mins.astype(np.float32)
    span = np.maximum(values.max(axis=1) - low, np.float32(0))
    scales = (span / top + np.float32(0)).astype(np.float16)
    step = scales.astype(np.float32)
    inverse = np.where(step > 0, np.float32(1) / np.where(step > 0, step, np.float32(1)), np.float32(0))
    scaled = (values - low[:, None]) * inverse[:, None]
    codes = np.rint(np.clip(scaled, np.float32(0), top)).astype(np.uint8)

    order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
    packed = tiles.pack(order, bits, ungrouped(codes, axis, group, rows.shape[1]))
    return tiles.block([packed, scales.astype("<f2").tobytes(), mins.astype("<f2").tobytes()])
