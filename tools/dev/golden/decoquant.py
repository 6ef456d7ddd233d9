"""Golden blocks of `decoquant`, written from src/codec/decoquant/decoquant.md."""

import itertools
import math

import numpy as np

import tiles
from hadamard import mix
from reflectors import made_up, read, reflect
from scalar_codes import UNIFORM_STEP, f32, inverse, nearest, sequential_sum

WIDTHS = (0, 1, 2, 3, 4, 6, 8)
TRELLIS = {
    1: (
        0.014943163,
        [
            154, 255, 158, 58, 163, 84, 90, 178, 38, 136, 211, 111, 126, 26, 104, 186, 222, 80, 151, 158,
            114, 171, 211, 72, 42, 138, 104, 177, 182, 87, 136, 245, 85, 136, 77, 173, 4, 199, 146, 93, 130,
            156, 48, 238, 190, 111, 192, 82, 93, 202, 79, 114, 119, 100, 11, 164, 155, 32, 154, 75, 81, 179,
            59, 146,
        ],
    ),
    2: (
        0.020163529,
        [
            173, 110, 76, 142, 151, 230, 126, 93, 168, 104, 153, 46, 129, 197, 34, 88, 136, 223, 168, 104,
            61, 146, 98, 187, 47, 182, 139, 102, 200, 153, 89, 128, 91, 59, 133, 180, 120, 119, 170, 72,
            112, 25, 71, 144, 81, 119, 164, 254, 110, 154, 212, 56, 187, 77, 1, 134, 214, 139, 103, 174,
            149, 71, 117, 186,
        ],
    ),
    3: (
        0.022746632,
        [
            107, 133, 120, 78, 155, 95, 187, 57, 194, 153, 70, 42, 134, 117, 99, 171, 70, 197, 135, 105, 86,
            230, 49, 23, 138, 97, 85, 174, 110, 145, 123, 156, 1, 61, 103, 119, 176, 157, 218, 139, 120,
            177, 37, 131, 210, 171, 146, 91, 94, 81, 184, 146, 255, 63, 163, 114, 163, 110, 153, 209, 188,
            135, 78, 125,
        ],
    ),
    4: (
        0.024546445,
        [
            94, 137, 130, 73, 151, 103, 182, 60, 197, 164, 83, 38, 141, 124, 115, 162, 76, 193, 137, 106,
            100, 219, 54, 24, 131, 118, 92, 175, 111, 145, 123, 155, 1, 64, 100, 112, 162, 154, 233, 128,
            121, 183, 71, 136, 210, 170, 145, 87, 88, 79, 158, 143, 255, 47, 168, 97, 175, 112, 149, 203,
            187, 131, 107, 121,
        ],
    ),
}
DISTORTION = {0: 1.0, 1: 0.3634, 2: 0.1175, 3: 0.03455, 4: 0.009506, 6: 0.001040, 8: 0.00008769}

# Share of codes that may differ by one step: sums round differently at a threshold.
MAX_CODE_MISMATCH = 1e-3


# ---- options


def equal_widths(bits: float, num_tiles: int) -> list[int]:
    """The cheapest choice with the largest sum that does not exceed bits * num_tiles, widest first."""
    budget = math.floor(bits * num_tiles)
    best = None
    for choice in itertools.combinations_with_replacement(WIDTHS[::-1], num_tiles):
        total = sum(choice)
        if total > budget:
            continue
        key = (-total, sum(DISTORTION[w] for w in choice))
        if best is None or key < best[0]:
            best = (key, list(choice))
    return best[1]


class Setup:
    """Options and basis resolved for one head size."""

    def __init__(self, side: str, dim: int, options: dict, basis: bytes | None):
        self.dim = dim
        self.gauge = options.get("gauge", "hadamard")
        self.code = options.get("code", "auto")
        if self.code == "auto":
            self.code = "absmax" if self.gauge == "sqrt" else "lm"
        mean = options.get("mean", "auto")
        self.centred = mean == "on" or (mean == "auto" and side == "k" and self.gauge != "sqrt")
        self.unbiased = options.get("scale", "unbiased") == "unbiased"
        self.order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
        self.widths = equal_widths(float(options.get("bits", 4)), dim // 16)
        self.gains = None
        self.reflectors = []
        self.weighted = options.get("metric", "rows") == "model"
        self.metric_gains = None
        self.metric = []
        self.mix = self.gauge != "sqrt"
        if basis is not None:
            self.read_basis(basis)

    def read_basis(self, basis: bytes):
        fold = 16 if self.gauge == "sqrt" else self.dim
        num_tiles = self.dim // 16
        self.widths = list(basis[:num_tiles])
        at = -(-num_tiles // 16) * 16
        self.gains = np.frombuffer(basis, "<f2", fold, at).astype(np.float32)
        self.reflectors = read(basis, at + 2 * fold, fold)
        self.mix = self.gauge == "bal"
        if self.weighted:
            at += 2 * fold + 2 * (fold - 1) + fold * (fold - 1) // 2
            at += -at % 16
            self.metric_gains = np.frombuffer(basis, "<f2", self.dim, at).astype(np.float32)
            self.metric = read(basis, at + 2 * self.dim, self.dim, self.dim // 4)


# ---- bases

# Widths of a klt basis at 3 bits, by number of tiles: every width once at head size 128.
SPREAD = {4: [6, 4, 2, 0], 8: [8, 6, 4, 3, 2, 1, 0, 0]}


def make_basis(side: str, dim: int, options: dict) -> bytes:
    """A valid basis that no fit made: falling gains, reflectors of about unit length. Fitting is not part of the format."""
    setup = Setup(side, dim, options, None)
    fold = 16 if setup.gauge == "sqrt" else dim
    widths = SPREAD[dim // 16] if setup.gauge == "klt" else setup.widths
    assert sum(widths) == sum(setup.widths), "SPREAD is for 3 bits"
    gains = 0.05 ** (np.arange(fold) / fold)
    basis = bytes(widths) + bytes(-len(widths) % 16) + gains.astype("<f2").tobytes() + made_up(fold)
    if setup.weighted:
        metric_gains = 0.1 ** (np.arange(dim) * 5 % dim / dim)
        basis += bytes(-len(basis) % 16) + metric_gains.astype("<f2").tobytes() + made_up(dim, dim // 4)
    return basis + bytes(-len(basis) % 64)


# ---- latents


def latents(setup: Setup, z: np.ndarray) -> np.ndarray:
    y = z
    if setup.weighted:
        y = reflect(setup.metric, y) * setup.metric_gains
    if setup.gains is not None:
        fold = len(setup.gains)
        groups = reflect(setup.reflectors, y.reshape(-1, fold))
        y = (groups / setup.gains).reshape(z.shape)
    return mix(y) if setup.mix else y


# ---- codes


def quantise_absmax(setup: Setup, y: np.ndarray):
    width = setup.widths[0]
    scale = np.abs(y).max(axis=1) / f32(2 ** (width - 1) - 1)
    codes = np.rint(y * inverse(scale)[:, None]).astype(np.int64) + 2 ** (width - 1)
    return codes.astype(np.uint8), scale


def quantise(setup: Setup, y: np.ndarray):
    """Codes [64, dim] and scales [64]."""
    if setup.code == "absmax":
        return quantise_absmax(setup, y)
    widths = np.repeat(setup.widths, 16)
    present = widths > 0
    codes = np.zeros(y.shape, np.uint8)
    values = np.zeros(y.shape, np.float32)
    gain = np.sqrt(sequential_sum((y * y)[:, present]) / f32(present.sum()))
    u = y * inverse(gain)[:, None]
    if setup.code == "trellis":
        codes, values, u = quantise_trellis(setup, u)
    else:
        for width in set(widths[present]):
            at = widths == width
            codes[:, at], values[:, at] = nearest(setup.code, int(width), u[:, at])
    weights = np.ones(setup.dim, np.float32)
    if setup.gauge == "klt" and setup.gains is not None:
        weights = setup.gains * setup.gains
    uu, uv, vv = (sequential_sum((weights * a * b)[:, present]) for a, b in ((u, u), (u, values), (values, values)))
    ratio = uu / np.where(uv > 0, uv, 1) if setup.unbiased else uv / vv
    return codes, np.where(uv > 0, gain * ratio, f32(0))


# ---- trellis


def best_path(x: np.ndarray, levels: np.ndarray, bits: int, start: np.ndarray | None):
    """Windows [64, 16] of the cheapest paths, one per column of x; `start` fixes the state at both ends."""
    states = 64 >> bits
    columns = np.arange(x.shape[1])
    entering = np.arange(64).reshape(1 << bits, states)  # [oldest symbol, state that the window leads to]
    cost = np.zeros((states, x.shape[1]), np.int64)
    if start is not None:
        cost += np.where(np.arange(states)[:, None] == start, 0, 1 << 40)
    came = []
    for values in x:
        window_cost = (values - 4 * (levels[:, None] - 128)) ** 2
        total = (cost[np.arange(64) >> bits] + window_cost)[entering]
        oldest = total.argmin(axis=0)  # the first of equals
        cost = np.take_along_axis(total, oldest[None], axis=0)[0]
        came.append(oldest * states + np.arange(states)[:, None])
    state = cost.argmin(axis=0) if start is None else start
    windows = np.empty(x.shape, np.int64)
    for t in range(63, -1, -1):
        windows[t] = came[t][state, columns]
        state = windows[t] >> bits
    return windows


PLACE = np.arange(64)
TOKEN_AT_PLACE = 16 * (PLACE % 8 // 2) + 2 * (PLACE // 8) + PLACE % 2


def trellis_tile(x: np.ndarray, bits: int):
    """Symbols and values [64 tokens, 16]."""
    step, levels = f32(TRELLIS[bits][0]), np.array(TRELLIS[bits][1])
    x = x[TOKEN_AT_PLACE]
    free = best_path(np.roll(x, -32, axis=0), levels, bits, None)
    seam = free[31] & ((64 >> bits) - 1)
    windows = np.empty_like(x)
    windows[TOKEN_AT_PLACE] = best_path(x, levels, bits, seam)
    return windows & (2**bits - 1), (levels[windows] - 128).astype(np.float32) * step


def pack_trellis_tile(order: str, bits: int, symbols: np.ndarray) -> bytes:
    """Symbols [64 tokens, 16] -> 128 * bits bytes: runs of 8 symbols, the newest lowest, in four parts."""
    by_run = symbols[TOKEN_AT_PLACE].astype(np.uint32).reshape(8, 8, 16)  # [run, place in it, channel]
    runs = (by_run << (bits * np.arange(7, -1, -1, dtype=np.uint32))[None, :, None]).sum(axis=1, dtype=np.uint32)
    if order == tiles.TOKEN_LANE:  # [part, run of the part]
        parts = runs.reshape(8, 4, 4).transpose(1, 0, 2).reshape(4, 32)
    else:
        parts = runs.reshape(4, 2, 16).transpose(0, 2, 1).reshape(4, 32)
    packed = b""
    for pair in (parts[:2], parts[2:]):
        for part in pair:
            for word in range(bits // 2):
                packed += (part >> (16 * word) & 0xFFFF).astype("<u2").tobytes()
        if bits % 2:
            packed += (pair.T >> (16 * (bits // 2)) & 0xFF).astype(np.uint8).tobytes()
    return packed


def pack(setup: Setup, codes: np.ndarray) -> bytes:
    if setup.code != "trellis":
        return tiles.pack(setup.order, setup.widths, codes)
    packed = b""
    for i, bits in enumerate(setup.widths):
        tile = codes[:, 16 * i : 16 * i + 16]
        pack_tile = pack_trellis_tile if 1 <= bits <= 4 else tiles.pack_tile
        packed += pack_tile(setup.order, int(bits), tile)
    return packed


def quantise_trellis(setup: Setup, u: np.ndarray):
    """Codes, values and the rounded u, all [64, dim]."""
    codes = np.zeros(u.shape, np.uint8)
    values, rounded = np.zeros(u.shape, np.float32), np.zeros(u.shape, np.float32)
    for tile, bits in enumerate(setup.widths):
        at = slice(16 * tile, 16 * tile + 16)
        if bits == 0:
            continue
        step = f32(TRELLIS[bits][0] if bits <= 4 else UNIFORM_STEP[bits])
        n = f32(4 if bits <= 4 else 64)
        x = np.rint(np.clip(u[:, at] * (n / step), -160 * n, 160 * n)).astype(np.int64)
        if bits <= 4:
            codes[:, at], values[:, at] = trellis_tile(x, bits)
        else:
            half = 2 ** (bits - 1)
            codes[:, at] = np.clip((x >> 6) + half, 0, 2 * half - 1)
            values[:, at] = (codes[:, at].astype(np.float32) - f32(half - 0.5)) * step
        rounded[:, at] = x.astype(np.float32) * (step / n)
    return codes, values, rounded


def encode(rows: np.ndarray, side: str, options: dict, basis: bytes | None = None) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"bits": "4", "gauge": "klt"}."""
    setup = Setup(side, rows.shape[1], options, basis)
    streams = []
    z = rows.astype(np.float32)
    if setup.centred:
        means = (sequential_sum(z.T) / f32(64)).astype(np.float16)
        z = z - means.astype(np.float32)
        streams.append(means.astype("<f2").tobytes())
    codes, scales = quantise(setup, latents(setup, z))
    streams.append(scales.astype("<f2").tobytes())
    streams.append(pack(setup, codes))
    return tiles.block(streams)
