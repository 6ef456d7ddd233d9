"""Tiles of codes, written from the comment of src/codec/parts/tile.h.

A tile is 16 channels x 64 tokens of codes of `bits` bits, numbered so that four neighbours meet in one byte-wise dot
product, split into planes of 1, 2, 4 or 8 bits, each plane packed field by field.
"""

import numpy as np

TOKEN_LANE = "token_lane"  # keys: number = ((channel / 4) * 64 + token) * 4 + channel % 4
CHANNEL_LANE = "channel_lane"  # values: number = ((token / 4) * 16 + channel) * 4 + token % 4

# Plane widths by code width, the plane of the low bits first.
PLANES = {0: [], 1: [1], 2: [2], 3: [2, 1], 4: [4], 6: [4, 2], 8: [8]}


def numbered(tile: np.ndarray, order: str) -> np.ndarray:
    """Codes [64, 16] -> [1024] by code number."""
    if order == TOKEN_LANE:
        return tile.reshape(64, 4, 4).transpose(1, 0, 2).ravel()
    return tile.reshape(16, 4, 16).transpose(0, 2, 1).ravel()


def pack_plane(codes: np.ndarray, width: int) -> bytes:
    """Field f of byte k is code number f * 128 * width + k."""
    fields = codes.astype(np.uint32).reshape(8 // width, 128 * width)
    shifts = width * np.arange(8 // width, dtype=np.uint32)[:, None]
    return (fields << shifts).sum(axis=0).astype(np.uint8).tobytes()


def pack_tile(order: str, bits: int, tile: np.ndarray) -> bytes:
    codes = numbered(tile, order)
    packed = b""
    for width in PLANES[bits]:
        packed += pack_plane(codes & (2**width - 1), width)
        codes = codes >> width
    return packed


def pack(order: str, bits, codes: np.ndarray) -> bytes:
    """Codes [64, channels]; `bits` for all tiles, or a list with one width per tile."""
    tiles = codes.shape[1] // 16
    widths = [bits] * tiles if isinstance(bits, int) else bits
    return b"".join(pack_tile(order, w, codes[:, 16 * i : 16 * i + 16]) for i, w in enumerate(widths))


def block(streams) -> bytes:
    """The streams of a block one after the other: each begins at a multiple of 16, the whole is padded to 64."""
    joined = b""
    for stream in streams:
        joined += bytes(-len(joined) % 16) + stream
    return joined + bytes(-len(joined) % 64)
