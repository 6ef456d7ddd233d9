"""Golden blocks of `vidkv`, written from src/codec/vidkv/vidkv.md."""

import numpy as np

import tiles
import uniform
from decoquant import mix

F32 = np.float32


def encode(rows: np.ndarray, side: str, options: dict) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text."""
    group = int(options.get("group", 64))
    stretch = float(options.get("stretch", 1.15))
    make = encode_keys if side == "k" else encode_values
    return make(rows.astype(F32), options, group, F32(stretch))


# --- keys


def encode_keys(rows: np.ndarray, options: dict, group: int, stretch) -> bytes:
    num_tiles = rows.shape[1] // 16
    share = float(options.get("wide", 0.5))
    wide_tiles = int(np.floor(share * num_tiles + 0.5))
    wide_tiles = min(max(wide_tiles, 1, num_tiles - 11), num_tiles - 1, 11)
    ranges = rows.max(axis=0) - rows.min(axis=0)
    is_wide = np.zeros(rows.shape[1], dtype=bool)
    is_wide[np.argsort(-ranges, kind="stable")[: 16 * wide_tiles]] = True
    rest = rows[:, ~is_wide]
    if options.get("transform", "hadamard") == "hadamard":
        rest = mix(rest)
    return tiles.block(
        [np.packbits(is_wide, bitorder="little").tobytes()]
        + uniform.streams(rows[:, is_wide], "k", "channel", 2, group)
        + uniform.streams(rest, "k", "channel", 1, group, options.get("levels", "spread"), stretch)
    )


# --- values


def encode_values(rows: np.ndarray, options: dict, group: int, stretch) -> bytes:
    num_salient = int(options.get("salient", 12))
    gamma = F32(float(options.get("gamma", 0.7)))
    sizes = uniform.lane_sums(np.abs(rows))
    is_salient = np.zeros(64, dtype=bool)
    is_salient[np.argsort(-sizes, kind="stable")[:num_salient]] = True
    ordinary, salient = rows[~is_salient], rows[is_salient]
    scales, trits = code_trits(ordinary, group, gamma, stretch)
    streams = [pack_quads(trits, 5, pack_trits), scales.astype("<f2").tobytes()]
    if num_salient:
        stored_scales = scales.astype(F32)[(64 - num_salient + np.arange(num_salient)) // group]
        codes, gains = code_salient(salient, stored_scales)
        streams += [
            np.packbits(is_salient, bitorder="little").tobytes(),
            pack_quads(codes, 4, lambda f: f[0] + 4 * f[1] + 16 * f[2] + 64 * f[3]),
            gains.astype("<f2").tobytes(),
        ]
    return tiles.block(streams)


def code_trits(rows: np.ndarray, group: int, gamma, stretch):
    """Scales [groups, dim] as fp16 and trits [tokens, dim]."""
    scales, trits = [], []
    for first in range(0, len(rows), group):
        part = rows[first : first + group]
        size = np.abs(part)
        threshold = gamma * uniform.mean(size.T, "channel")
        kept = np.zeros(rows.shape[1], F32)
        for row in size:
            kept = kept + np.where(row > threshold, row, F32(0))
        count = (size > threshold).sum(axis=0).astype(F32)
        scale = np.where(count > 0, stretch * (kept / np.maximum(count, F32(1))), F32(0))
        scales.append(scale.astype(np.float16))
        trits.append(1 + (part > threshold).astype(np.int64) - (part < -threshold))
    return np.array(scales), np.concatenate(trits)


def code_salient(rows: np.ndarray, scales: np.ndarray):
    inverse = np.where(scales > 0, F32(1) / np.where(scales > 0, scales, F32(1)), F32(0))
    units = rows * inverse
    mean = uniform.lane_sums(np.abs(units)) / F32(rows.shape[1])
    gains = np.minimum(mean / F32(0.674), F32(65504)).astype(np.float16)
    threshold = gains.astype(F32)[:, None] * F32(6.5 / 8)
    outer = np.abs(units) > threshold
    codes = np.where(units < 0, np.where(outer, 0, 1), np.where(outer, 3, 2))
    return codes, gains


def pack_trits(fields):
    value = 0
    for trit in fields:
        value = 3 * value + trit
    return (value * 256 + 242) // 243


def pack_quads(codes: np.ndarray, fields: int, pack) -> bytes:
    """Codes [tokens, dim]; quads of 16 channels x 4 tokens, channel tile by channel tile."""
    tokens, dim = codes.shape
    quads = codes.reshape(tokens // 4, 4, dim // 16, 16).transpose(2, 0, 3, 1).reshape(-1, 64)
    rows = -(-len(quads) // fields)
    padded = np.zeros((fields * rows, 64), dtype=np.int64)
    padded[: len(quads)] = quads
    return pack(list(padded.reshape(fields, rows * 64))).astype(np.uint8).tobytes()
