"""Golden blocks of `turboquant`, written from src/codec/turboquant/turboquant.md."""

import numpy as np

import reflectors
import tiles
from hadamard import mix
from scalar_codes import f32, inverse, nearest, sequential_sum
from sketch import directions

# Share of codes that may differ by one step: sums round differently at a threshold.
MAX_CODE_MISMATCH = 1e-3
ROTATION_SEED = 0x5451

PRESETS = {
    ("none", "k"): {},
    ("none", "v"): {},
    ("paper", "k"): {"rotate": "dense", "scale": "norm"},
    ("paper", "v"): {"rotate": "dense", "scale": "norm"},
    ("turboesm", "k"): {"code": "calibrated", "bits": "4", "rotate": "svd", "residual": "sign"},
    ("turboesm", "v"): {"code": "calibrated", "bits": "3", "rotate": "none"},
}
DEFAULTS = {"bits": "4", "rotate": "hadamard", "scale": "unbiased", "mean": "off", "code": "lm", "residual": "none"}


class Setup:
    """Options and basis resolved: channel lists and widths of the classes, the map, the table."""

    def __init__(self, side: str, dim: int, given: dict, basis: bytes | None):
        options = DEFAULTS | PRESETS[given.get("preset", "none"), side] | given
        self.rotate, self.scale, self.residual = options["rotate"], options["scale"], options["residual"]
        self.centred = options["mean"] == "on"
        self.calibrated = options["code"] == "calibrated"
        self.sketched = self.residual in ("gaussian", "orthogonal")
        self.order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
        bits = float(options["bits"]) - self.sketched
        self.set_classes(dim, bits, basis)
        at = -(-len(self.classes[0]) // 16) * 16 if len(self.classes) == 2 else 0
        if self.calibrated:
            self.thresholds = np.frombuffer(basis, "<f4", 2 ** int(bits) - 1, at + 24)
            at += 96
        if self.rotate == "svd":
            self.vectors = reflectors.read(basis, at, dim)

    def set_classes(self, dim: int, bits: float, basis: bytes | None):
        if bits == int(bits):
            self.classes = [list(range(dim))] if bits > 0 else []
            self.widths = [int(bits)] if bits > 0 else []
            return
        count = 16 * max(dim // 64, 1)
        outliers = list(range(count)) if basis is None else list(basis[:count])
        self.classes = [outliers, [c for c in range(dim) if c not in outliers]]
        self.widths = [int(bits) + 1, int(bits)]

    def rotated(self, x: np.ndarray) -> np.ndarray:
        n = x.shape[1]
        if self.rotate == "hadamard":
            return mix(x)
        if self.rotate == "dense":
            s = directions(n, n, ROTATION_SEED).astype(np.float64)
            return (x.astype(np.float64) @ s.T / np.sqrt(n)).astype(np.float32)
        return reflectors.reflect(self.vectors, x) if self.rotate == "svd" else x


def make_basis(side: str, dim: int, options: dict) -> bytes:
    """A valid basis that no fit made: every third channel an outlier, an uneven table, reflectors of about unit length."""
    options = DEFAULTS | PRESETS[options.get("preset", "none"), side] | options
    basis = b""
    bits = float(options["bits"])
    if bits != int(bits):
        basis += bytes(range(1, dim, 3))[: 16 * max(dim // 64, 1)]
    if options["code"] == "calibrated":
        entries = 2 ** int(bits)
        values = 2.5 * np.linspace(-1, 1, entries) * (0.6 + 0.4 * np.abs(np.linspace(-1, 1, entries)))
        levels = 128 + np.rint(127 * values / np.abs(values).max()).astype(int)
        borders = np.zeros(15, np.float32)
        borders[: entries - 1] = (values[1:] + values[:-1]) / 2
        basis += np.array([int(bits)], "<i4").tobytes() + np.array([2.5 / 127], "<f4").tobytes()
        basis += bytes(levels.tolist()) + bytes(16 - entries) + borders.astype("<f4").tobytes()
        basis += bytes(-len(basis) % 16)
    if options["rotate"] == "svd":
        basis += reflectors.made_up(dim)
    return basis + bytes(-len(basis) % 64)


def coded(setup: Setup, width: int, y: np.ndarray):
    """Codes, values and scales of one class."""
    if setup.calibrated:
        return (y[:, :, None] > setup.thresholds).sum(axis=2).astype(np.uint8), None, None
    gain = np.sqrt(sequential_sum(y * y) / f32(y.shape[1]))
    u = y * inverse(gain)[:, None]
    codes, values = nearest("lm", width, u)
    values = values.astype(np.float32)
    uu, uv, vv = (sequential_sum(a * b) for a, b in ((u, u), (u, values), (values, values)))
    positive = np.where(uv > 0, uv, f32(1))
    ratio = {"norm": f32(1), "nc": np.sqrt(uu / vv), "unbiased": uu / positive, "ls": uv / vv}[setup.scale]
    return codes.astype(np.uint8), values, np.where(uv > 0, gain * ratio, f32(0)).astype(np.float16)


def encode(rows: np.ndarray, side: str, options: dict, basis: bytes | None = None) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"bits": "2.5", "rotate": "dense"}."""
    dim = rows.shape[1]
    setup = Setup(side, dim, options, basis)
    streams = []
    z = rows.astype(np.float32)
    if setup.centred:
        means = (sequential_sum(z.T) / f32(64)).astype(np.float16)
        z = z - means.astype(np.float32)
        streams.append(means.astype("<f2").tobytes())
    residual = z if not setup.classes else np.zeros((64, 0), np.float32)
    for channels, width in zip(setup.classes, setup.widths):
        y = setup.rotated(z[:, channels])
        codes, values, scales = coded(setup, width, y)
        if scales is not None:
            streams.append(scales.astype("<f2").tobytes())
            residual = np.concatenate([residual, y - scales.astype(np.float32)[:, None] * values], axis=1)
        streams.append(tiles.pack(setup.order, width, codes))
    if setup.sketched:
        s = directions(dim, dim, orthogonal=setup.residual == "orthogonal").astype(np.float64)
        wide = residual.astype(np.float64)
        streams.append(np.sqrt((wide**2).sum(axis=1)).astype("<f2").tobytes())
        streams.append(tiles.pack(tiles.TOKEN_LANE, 1, (wide @ s.T > 0).astype(np.uint8)))
    return tiles.block(streams)
