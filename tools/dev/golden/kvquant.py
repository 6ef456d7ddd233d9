"""Golden blocks of `kvquant`, written from src/codec/kvquant/kvquant.md."""

import numpy as np

import tiles

F32 = np.float32
POSITIONS = 1000 + np.arange(64)  # of keys, turned by split halves at base 10000 (tests/golden/README.md)


def bits_of(options: dict) -> int:
    return int(options.get("bits", 4))


def slots_of(options: dict, dim: int) -> int:
    sixteens = float(options.get("outliers", 1)) / 100 * 64 * dim / 16
    return 16 * int(np.floor(sixteens + 0.5))


def make_basis(side: str, dim: int, options: dict) -> bytes:
    """Made up: a little uneven, as fitted levels are."""
    count = 2 ** bits_of(options)
    even = (2 * np.arange(count) + 1) / count - 1
    levels = np.rint(128 + 127 * np.sign(even) * np.abs(even) ** 1.2).astype(np.uint8)
    values = (levels.astype(F32) - F32(128)) / F32(127)
    table = np.zeros(16, np.uint8)
    table[:count] = levels
    thresholds = np.zeros(16, F32)
    thresholds[: count - 1] = (values[1:] + values[:-1]) / F32(2)
    basis = table.tobytes() + thresholds.astype("<f4").tobytes()
    if side == "k":
        channels = np.arange(dim)
        mids = (channels % 5 - 2) / 8
        halves = 2.0 ** (7 * channels % 5 - 2) * 2.5
        basis += mids.astype("<f2").tobytes() + halves.astype("<f2").tobytes()
    return basis


def turned_back(rows: np.ndarray) -> np.ndarray:
    """Rows [64, dim] before RoPE, in pair order."""
    dim = rows.shape[1]
    frequencies = 10000.0 ** (-2.0 * np.arange(dim // 2) / dim)
    angles = POSITIONS[:, None] * frequencies[None, :]
    cos, sin = np.cos(angles), np.sin(angles)
    first, second = rows[:, : dim // 2].astype(np.float64), rows[:, dim // 2 :].astype(np.float64)
    pairs = np.stack([first * cos + second * sin, second * cos - first * sin], axis=2)
    return pairs.reshape(64, dim).astype(F32)


def inverse(halves: np.ndarray) -> np.ndarray:
    return np.where(halves > 0, F32(1) / np.where(halves > 0, halves, F32(1)), F32(0)).astype(F32)


def chosen(measure: np.ndarray, place: np.ndarray, slots: int) -> np.ndarray:
    """Flat indexes of the largest, by rising place."""
    order = np.lexsort((place.ravel(), -measure.ravel()))[:slots]
    return order[np.argsort(place.ravel()[order])]


def encode(rows: np.ndarray, side: str, options: dict, basis: bytes) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text."""
    dim, bits = rows.shape[1], bits_of(options)
    slots = slots_of(options, dim)
    levels = np.frombuffer(basis[:16], np.uint8)
    thresholds = np.frombuffer(basis[16:80], "<f4")[: 2**bits - 1]
    token, channel = np.mgrid[0:64, 0:dim]
    streams = []
    if side == "k":
        values = turned_back(rows)
        order = np.arange(dim).reshape(2, dim // 2).T.ravel()
        ranges = np.frombuffer(basis[80:], "<f2").astype(F32).reshape(2, dim)[:, order]
        mids, halves = ranges[0][None, :], ranges[1][None, :]
        place = channel // 4 * 256 + channel % 2 * 128 + token * 2 + channel // 2 % 2
        outliers = chosen(np.abs((values - mids) * inverse(halves)), place, slots)
    else:
        values = rows.astype(F32)
        place = channel * 64 + token
        mean = values.mean(axis=1, keepdims=True, dtype=np.float64)
        deviation = values.std(axis=1, keepdims=True, dtype=np.float64)
        measure = np.abs(values - mean) / np.where(deviation > 0, deviation, 1)
        outliers = chosen(measure.astype(F32), place, slots)
        inside = np.ma.array(values, mask=np.isin(np.arange(64 * dim), outliers).reshape(64, dim))
        low, high = inside.min(axis=1).filled(0).astype(F32), inside.max(axis=1).filled(0).astype(F32)
        mid_words = ((high + low) * F32(0.5) + F32(0)).astype("<f2")
        half_words = ((high - low) * F32(0.5)).astype("<f2")
        streams += [mid_words.tobytes(), half_words.tobytes()]
        mids, halves = mid_words.astype(F32)[:, None], half_words.astype(F32)[:, None]
    normalised = (values - mids) * inverse(halves)
    codes = (normalised[:, :, None] > thresholds).sum(axis=2).astype(np.uint8)
    coded = mids + halves * ((levels[codes].astype(F32) - F32(128)) * F32(1 / 127))
    deltas = (values - coded).ravel()[outliers].astype("<f2")
    if slots:
        streams += [deltas.tobytes(), place.ravel()[outliers].astype("<u2").tobytes()]
    tile_order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
    return tiles.block([tiles.pack(tile_order, bits, codes)] + streams)
