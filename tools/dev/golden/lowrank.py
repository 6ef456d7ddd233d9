"""Golden blocks of `lowrank`, written from src/codec/lowrank/lowrank.md."""

from statistics import NormalDist

import numpy as np

import tiles
from hadamard import mix
from scalar_codes import UNIFORM_STEP

# Share of codes that may differ by one step: sums round differently at a threshold.
MAX_CODE_MISMATCH = 1e-3
DEFAULTS = {"bits": "4", "code": "nf", "rank": "8", "factor_bits": "4", "rounds": "0", "rotate": "hadamard"}
GROUP = 64


def table(code: str, bits: int) -> np.ndarray:
    """Values [2^bits], float64, rounded to multiples of 1 / 127."""
    half = 2 ** (bits - 1)
    if code == "uniform":
        values = np.linspace(-1, 1, 2 * half)
    else:
        outermost = 0.9677083
        points = np.concatenate([np.linspace(1 - outermost, 0.5, half)[:-1], np.linspace(0.5, outermost, half + 1)])
        values = np.array([NormalDist().inv_cdf(p) for p in points]) / NormalDist().inv_cdf(outermost)
    return np.rint(values * 127) / 127


def make_basis(side: str, dim: int, options: dict) -> bytes:
    """A valid basis that no fit made: a mean, and directions without symmetry, or a row of zeros would meet a threshold."""
    options = DEFAULTS | options
    rank = int(options["rank"])
    channel = np.arange(dim)
    mean = ((53 * channel % 101 - 40) / 64).astype("<f2")
    factor = np.arange(1, rank + 1)[:, None]
    directions = ((37 * channel**2 + 73 * channel * factor + 11 * factor**2) % 255 - 127).astype("i1")
    norms = np.sqrt((directions.astype(float) ** 2).sum(axis=1))
    steps = (UNIFORM_STEP[int(options["factor_bits"])] * 4 / norms / np.sqrt(np.arange(1, rank + 1))).astype("<f4")
    basis = mean.tobytes() + steps.tobytes() + directions.tobytes()
    return basis + bytes(-len(basis) % 64)


class Encoder:
    def __init__(self, dim: int, options: dict, basis: bytes | None):
        options = DEFAULTS | options
        self.dim = dim
        self.bits = int(options["bits"])
        self.values = table(options["code"], self.bits)
        self.rank, self.factor_bits = int(options["rank"]), int(options["factor_bits"])
        self.rounds, self.rotate = int(options["rounds"]), options["rotate"] == "hadamard"
        self.directions = None
        if basis is not None:
            self.mean = np.frombuffer(basis, "<f2", dim).astype(np.float64)
            steps = np.frombuffer(basis, "<f4", self.rank, 2 * dim).astype(np.float64)
            directions = np.frombuffer(basis, "i1", self.rank * dim, 2 * dim + 4 * self.rank).reshape(self.rank, dim)
            self.directions = steps[:, None] * directions

    def latents(self, rows: np.ndarray) -> np.ndarray:
        x = (mix(rows) if self.rotate else rows).astype(np.float64)
        return x if self.directions is None else x - self.mean

    def fit_factors(self, x: np.ndarray) -> np.ndarray:
        half = 2 ** (self.factor_bits - 1)
        if self.directions is None:
            return np.zeros((64, self.rank), np.uint8)
        coordinates = x @ self.directions.T / (self.directions**2).sum(axis=1)
        return (np.floor(np.clip(coordinates, -half, half - 1)) + half).astype(np.uint8)

    def low_rank(self, factors: np.ndarray) -> np.ndarray:
        if self.directions is None:
            return np.zeros((64, self.dim))
        return (factors - (2**self.factor_bits - 1) / 2) @ self.directions

    def fit_scales(self, residual: np.ndarray):
        """Codes [groups, 64], the two halves, scales [64, dim]."""
        first = range(0, self.dim, GROUP)
        largest = np.stack([np.abs(residual[:, g : g + GROUP]).max(axis=1) for g in first])
        low = np.float16(largest.min())
        step = np.float16(max(largest.max() - np.float64(low), 0) / 255)
        wide = np.float64(step)
        codes = np.rint(np.clip((largest - np.float64(low)) / (wide or 1), 0, 255)) * (wide > 0)
        scales = np.repeat(np.float64(low) + codes * wide, [min(GROUP, self.dim - g) for g in first], axis=0).T
        return codes.astype(np.uint8), np.array([low, step], "<f2"), scales

    def code(self, residual: np.ndarray, scales: np.ndarray):
        units = np.divide(residual, scales, out=np.zeros_like(residual), where=scales > 0)
        codes = np.searchsorted((self.values[1:] + self.values[:-1]) / 2, units, side="left")
        return codes.astype(np.uint8), scales * self.values[codes]

    def choose(self, x: np.ndarray):
        """Factors, scale codes, halves and codes of the best of 1 + rounds choices."""
        best, base = None, x
        for _ in range(1 + (self.rounds if self.directions is not None else 0)):
            factors = self.fit_factors(base)
            residual = x - self.low_rank(factors)
            scale_codes, params, scales = self.fit_scales(residual)
            codes, values = self.code(residual, scales)
            error = ((residual - values) ** 2).sum()
            if best is not None and error >= best[0]:
                break
            best, base = (error, factors, scale_codes, params, codes), x - values
        return best[1:]


def digits_of(factors: np.ndarray, factor_bits: int) -> tuple[int, np.ndarray]:
    """Width and values [64, 16] of the digits, the lowest of each factor first."""
    count = 16 // factors.shape[1]
    width = factor_bits // count
    digits = [(factors[:, :, None] >> (k * width)) & (2**width - 1) for k in range(count)]
    return width, np.concatenate(digits, axis=2).reshape(64, 16).astype(np.uint8)


def encode(rows: np.ndarray, side: str, options: dict, basis: bytes | None = None) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"bits": "3", "rank": "16"}."""
    encoder = Encoder(rows.shape[1], options, basis)
    order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
    factors, scale_codes, params, codes = encoder.choose(encoder.latents(rows.astype(np.float32)))
    streams = [tiles.pack(order, encoder.bits, codes)]
    if encoder.rank > 0:
        width, digits = digits_of(factors, encoder.factor_bits)
        streams.append(tiles.pack(order, width, digits))
    return tiles.block(streams + [scale_codes.tobytes(), params.tobytes()])
