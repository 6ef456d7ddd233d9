"""Golden blocks of `kivi`, written from src/codec/kivi/kivi.md."""

import uniform


def encode(rows, side: str, options: dict) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"bits": "4", "group": "64"}."""
    axis = "channel" if side == "k" else "token"
    return uniform.encode(rows, side, axis, int(options.get("bits", 2)), int(options.get("group", 32)))
