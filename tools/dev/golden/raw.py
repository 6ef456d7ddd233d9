"""Golden blocks of `raw`, written from src/codec/raw/raw.md."""

import numpy as np

import tiles


def bf16(values: np.ndarray) -> np.ndarray:
    """The upper halves of float32 words, rounded to nearest, ties to even."""
    words = values.astype(np.float32).view(np.uint32)
    return ((words + 0x7FFF + ((words >> 16) & 1)) >> 16).astype("<u2")


def encode(rows: np.ndarray, side: str, options: dict) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"type": "bf16"}."""
    stored = bf16(rows) if options.get("type", "fp16") == "bf16" else rows.astype("<f2")
    return tiles.block([(stored.T if side == "k" else stored).tobytes()])
