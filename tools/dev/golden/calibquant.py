"""Golden blocks of `calibquant`, written from src/codec/calibquant/calibquant.md."""

import numpy as np

import tiles
import uniform

F32 = np.float32


def rule_of(side: str, bits: int, options: dict):
    rule = options.get("range", "auto")
    if rule == "auto":
        rule = "spread" if bits == 1 else "extremes"
    defaults = {"spread": 1.25, "quantile": 0.2, "shrunk": 1.0, "extremes": 1.0}
    if bits == 1:
        defaults["shrunk"] = 0.5 if side == "k" else 0.3
    amount = options.get("amount", "auto")
    return rule, defaults[rule] if amount == "auto" else float(amount)


def encode(rows: np.ndarray, side: str, options: dict, basis: bytes | None = None) -> bytes:
    bits = int(options.get("bits", 1))
    if options.get("stats", "page") == "page":
        rule, amount = rule_of(side, bits, options)
        return uniform.encode(rows, side, "channel", bits, 64, rule, amount)
    top = F32(2**bits - 1)
    if basis is None:
        raise ValueError("calibquant: stats=segment needs a basis")
    dim = rows.shape[1]
    words = np.frombuffer(basis, "<f2").astype(F32)
    scale, low = words[:dim], words[dim : 2 * dim]
    inverse = np.where(scale > 0, F32(1) / np.where(scale > 0, scale, F32(1)), F32(0))
    codes = np.rint(np.clip((rows.astype(F32) - low) * inverse, F32(0), top)).astype(np.uint8)
    order = tiles.TOKEN_LANE if side == "k" else tiles.CHANNEL_LANE
    return tiles.block([tiles.pack(order, bits, codes)])


def make_basis(side: str, dim: int, options: dict) -> bytes:
    """Scales and mins of no particular data; a channel of scale 0 among them."""
    channels = np.arange(dim)
    scales = (0.25 + channels % 7 / 8).astype("<f2")
    scales[5] = 0
    mins = (channels % 5 / 4 - 1).astype("<f2")
    words = scales.tobytes() + mins.tobytes()
    return words + bytes(-len(words) % 64)
