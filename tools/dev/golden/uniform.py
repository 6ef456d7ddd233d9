"""Blocks of uniform groups, written from the byte tables of src/codec/int/int.md, src/codec/kivi/kivi.md,
src/codec/asymkv/asymkv.md and src/codec/calibquant/calibquant.md."""

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


def lane_sums(values: np.ndarray) -> np.ndarray:
    """Sum of each row of float32 values: column j goes to sum j mod 16, and the sixteen are added in halves."""
    columns = values.reshape(values.shape[0], -1, 16)
    total = np.zeros((values.shape[0], 16), np.float32)
    for i in range(columns.shape[1]):
        total = total + columns[:, i]
    while total.shape[1] > 1:
        half = total.shape[1] // 2
        total = total[:, :half] + total[:, half:]
    return total[:, 0]


def mean(values: np.ndarray, axis: str) -> np.ndarray:
    """Mean of each row of float32 values, summed in the order of the axis."""
    if axis == "channel":
        total = np.zeros(values.shape[0], np.float32)
        for column in values.T:
            total = total + column
    else:
        total = lane_sums(values)
    return total / np.float32(values.shape[1])


def ends(values: np.ndarray, axis: str, rule: str, amount: float):
    """Lowest and highest level of each group."""
    amount = np.float32(amount)
    if rule == "extremes":
        return values.min(axis=1), values.max(axis=1)
    if rule == "shrunk":
        return values.min(axis=1) * amount, values.max(axis=1) * amount
    if rule == "quantile":
        count = values.shape[1]
        tail = int(amount * np.float32(count - 1) + np.float32(0.5))
        ordered = np.sort(values, axis=1)
        return ordered[:, tail], ordered[:, count - 1 - tail]
    center = mean(values, axis) if rule == "spread" else np.zeros(values.shape[0], np.float32)
    distance = mean(np.abs(values - center[:, None]), axis) * amount
    return center - distance, center + distance


def encode(rows: np.ndarray, side: str, axis: str, bits: int, group: int, rule="extremes", amount=1.0) -> bytes:
    """side is "k" or "v". All arithmetic is float32, every operation rounded on its own."""
    return tiles.block(streams(rows, side, axis, bits, group, rule, amount))


def streams(rows: np.ndarray, side: str, axis: str, bits: int, group: int, rule="extremes", amount=1.0) -> list:
    """Codes, scales and mins; no mins with rule "sign"."""
    values = grouped(rows.astype(np.float32), axis, group)
    top = np.float32(2**bits - 1)
    low, high = ends(values, axis, rule, amount)
    if rule == "sign":
        scales = (high / (np.float32(0.5) * top)).astype(np.float16)
        low = -np.float32(0.5) * top * scales.astype(np.float32)
    else:
        mins = (low + np.float32(0)).astype(np.float16)
        low = mins.astype(np.float32)
        span = np.maximum(high - low, np.float32(0))
        scales = (span / top + np.float32(0)).astype(np.float16)
    step = scales.astype(np.float32)
    inverse = np.where(step > 0, np.float32(1) / np.where(step > 0, step, np.float32(1)), np.float32(0))
    scaled = (values - low[:, None]) * inverse[:, None]
    codes = np.rint(np.clip(scaled, np.float32(0), top)).astype(np.uint8)

    order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
    packed = tiles.pack(order, bits, ungrouped(codes, axis, group, rows.shape[1]))
    parts = [packed, scales.astype("<f2").tobytes()]
    return parts if rule == "sign" else parts + [mins.astype("<f2").tobytes()]
