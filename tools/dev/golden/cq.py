"""Golden blocks of `cq`, written from src/codec/cq/cq.md."""

import numpy as np

import tiles

TOKENS = 64


class Setup:
    def __init__(self, dim: int, options: dict):
        self.channels = int(options.get("channels", 4))
        self.bits = int(options.get("bits", 8))
        self.dim = dim
        self.groups = dim // self.channels
        self.upper = np.triu_indices(self.channels)  # row by row


def make_basis(side: str, dim: int, options: dict) -> bytes:
    """Codebooks that were not fitted to anything: steps around 1/8, random levels."""
    s = Setup(dim, options)
    random = np.random.Generator(np.random.PCG64(1))
    offsets = (-16 + random.integers(-64, 64, s.dim) / 128).astype("<f4")
    maps = random.integers(-16, 16, (s.groups, s.channels, s.channels)) / 1024
    maps[:, np.arange(s.channels), np.arange(s.channels)] = random.integers(112, 144, (s.groups, s.channels)) / 1024
    triangles = np.stack([m[s.upper] for m in maps]).astype("<f4")
    centroids = random.integers(0, 256, (s.dim, 1 << s.bits), dtype=np.uint8)
    joined = offsets.tobytes() + triangles.tobytes() + centroids.tobytes()
    return joined + bytes(-len(joined) % 64)


def read_basis(s: Setup, basis: bytes):
    """Offsets [dim], maps [groups, channels, channels] and centroids [groups, channels, codes]."""
    triangle = s.channels * (s.channels + 1) // 2
    offsets = np.frombuffer(basis, "<f4", s.dim)
    maps = np.zeros((s.groups, s.channels, s.channels), np.float64)
    for g, values in enumerate(np.frombuffer(basis, "<f4", s.groups * triangle, 4 * s.dim).reshape(s.groups, triangle)):
        maps[g][s.upper] = values
    codes = np.frombuffer(basis, np.uint8, s.dim << s.bits, 4 * (s.dim + s.groups * triangle))
    return offsets, maps, codes.reshape(s.groups, s.channels, 1 << s.bits)


def group_codes(x: np.ndarray, r: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Codes [64] of x [64, channels], offsets taken off, for a map r and centroids [channels, codes]."""
    inverse = np.linalg.inv(r)
    levels = np.rint(np.clip(x.astype(np.float64) @ inverse.T, 0, 255)).astype(np.int64)
    distances = ((levels[:, :, None] - centroids.astype(np.int64)[None]) ** 2).sum(axis=1)
    return distances.argmin(axis=1)  # the first of equals


def encode(rows: np.ndarray, side: str, options: dict, basis: bytes) -> bytes:
    """rows [64, dim] float32; options as in scheme text, {"channels": "8"}."""
    s = Setup(rows.shape[1], options)
    offsets, maps, centroids = read_basis(s, basis)
    z = (rows.astype(np.float32) - offsets).reshape(TOKENS, s.groups, s.channels)
    codes = np.stack([group_codes(z[:, g], maps[g], centroids[g]) for g in range(s.groups)])
    streams = [(codes & 255).astype(np.uint8).tobytes()]
    if s.bits > 8:
        fields = (codes >> 8).reshape(s.groups, 4, 16)  # token t: field t / 16 of byte t % 16
        streams.append((fields << (2 * np.arange(4)[:, None])).sum(axis=1).astype(np.uint8).tobytes())
    return tiles.block(streams)
