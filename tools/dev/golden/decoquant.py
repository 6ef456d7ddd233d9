"""Golden blocks of `decoquant`, written from src/codec/decoquant/decoquant.md."""

import itertools
import math

import numpy as np

import tiles

WIDTHS = (0, 1, 2, 3, 4, 6, 8)
LM = {
    1: (0.0124669466, [64]),
    2: (0.0215773936, [21, 70]),
    3: (0.0244539287, [10, 31, 55, 88]),
    4: (0.026274899, [5, 15, 25, 36, 48, 62, 79, 104]),
}
UNIFORM_STEP = {1: 1.59576905, 2: 0.99568671, 3: 0.586019456, 4: 0.335200608, 6: 0.104063012, 8: 0.0307623744}
DISTORTION = {0: 1.0, 1: 0.3634, 2: 0.1175, 3: 0.03455, 4: 0.009506, 6: 0.001040, 8: 0.00008769}
SMALLEST = np.float32(1e-30)

# Share of codes that may differ by one step: sums round differently at a threshold.
MAX_CODE_MISMATCH = 1e-3


def f32(x):
    return np.float32(x)


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
        self.unbiased = side == "k"
        self.order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
        self.widths = equal_widths(float(options.get("bits", 4)), dim // 16)
        self.gains = None
        self.reflectors = []
        self.mix = self.gauge != "sqrt"
        if basis is not None:
            self.read_basis(basis)

    def read_basis(self, basis: bytes):
        fold = 16 if self.gauge == "sqrt" else self.dim
        num_tiles = self.dim // 16
        self.widths = list(basis[:num_tiles])
        at = -(-num_tiles // 16) * 16
        self.gains = np.frombuffer(basis, "<f2", fold, at).astype(np.float32)
        at += 2 * fold
        scales = np.frombuffer(basis, "<f2", fold - 1, at).astype(np.float32)
        at += 2 * (fold - 1)
        for k in range(fold - 1):
            tail = np.frombuffer(basis, "i1", fold - 1 - k, at).astype(np.float32)
            at += fold - 1 - k
            self.reflectors.append(np.concatenate([np.zeros(k, np.float32), [f32(1)], scales[k] * tail]))
        self.mix = self.gauge == "bal"


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
    lengths = np.arange(fold - 1, 0, -1)
    scales = 1 / (127 * np.sqrt(lengths / 3))
    tails = [(37 * i * i + 73 * i + k * k) % 255 - 127 for k, i in enumerate(map(np.arange, lengths))]
    parts = [bytes(widths) + bytes(-len(widths) % 16), gains.astype("<f2").tobytes(), scales.astype("<f2").tobytes()]
    basis = b"".join(parts) + np.concatenate(tails).astype("i1").tobytes()
    return basis + bytes(-len(basis) % 64)


# ---- latents


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
    n = f32(1) / np.sqrt(f32(p))
    y = y.copy()
    y[:, :p] = walsh(y[:, :p] * (signs(0, p) * n))
    y[:, p:] *= signs(p, dim - p)
    if p < dim:
        y[:, : dim - p] *= signs(dim, dim - p)
        y[:, dim - p :] = walsh(y[:, dim - p :] * (signs(2 * dim - p, p) * n))
    return y


def latents(setup: Setup, z: np.ndarray) -> np.ndarray:
    y = z
    if setup.gains is not None:
        fold = len(setup.gains)
        groups = y.reshape(-1, fold).astype(np.float64)
        for v in setup.reflectors:
            v = v.astype(np.float64)
            groups = groups - np.outer(groups @ v, 2 / (v @ v) * v)
        y = (groups.astype(np.float32) / setup.gains).reshape(z.shape)
    return mix(y) if setup.mix else y


# ---- codes


def magnitudes(code: str, width: int) -> np.ndarray:
    if code == "lm" and width in LM:
        step, steps = LM[width]
        return f32(step) * np.array(steps, np.float32)
    return (np.arange(2 ** (width - 1), dtype=np.float32) + f32(0.5)) * f32(UNIFORM_STEP[width])


def nearest(code: str, width: int, u: np.ndarray):
    """Codes and values nearest to u."""
    values = magnitudes(code, width)
    thresholds = f32(0.5) * (values[1:] + values[:-1])
    m = np.searchsorted(thresholds, np.abs(u), side="left")
    positive = u >= 0
    half = 2 ** (width - 1)
    return np.where(positive, half + m, half - 1 - m), np.where(positive, values[m], -values[m])


def sequential_sum(terms: np.ndarray) -> np.ndarray:
    """Over the last axis, in float32, first to last."""
    total = np.zeros(terms.shape[0], np.float32)
    for column in terms.T:
        total = total + column
    return total


def inverse(x: np.ndarray) -> np.ndarray:
    return np.divide(f32(1), x, out=np.zeros_like(x), where=x > SMALLEST)


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
    for width in set(widths[present]):
        at = widths == width
        codes[:, at], values[:, at] = nearest(setup.code, int(width), u[:, at])
    weights = np.ones(setup.dim, np.float32)
    if setup.gauge == "klt" and setup.gains is not None:
        weights = setup.gains * setup.gains
    uu, uv, vv = (sequential_sum((weights * a * b)[:, present]) for a, b in ((u, u), (u, values), (values, values)))
    ratio = uu / np.where(uv > 0, uv, 1) if setup.unbiased else uv / vv
    return codes, np.where(uv > 0, gain * ratio, f32(0))


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
    streams.append(tiles.pack(setup.order, setup.widths, codes))
    return tiles.block(streams)
