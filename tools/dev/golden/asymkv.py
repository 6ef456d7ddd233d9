"""Golden blocks of `asymkv`, written from src/codec/asymkv/asymkv.md. Blocks are those of layer 0 of 1."""

import uniform


def encode(rows, side: str, options: dict) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"layers": "1", "levels": "extremes"}."""
    axis = "channel" if side == "k" else "token"
    layers = options.get("layers", "auto")
    first = layers != "auto" and int(layers) > 0  # auto: half of one layer, or none
    bits = int(options.get("high", 2)) if first else int(options.get("low", 1))
    rule = options.get("levels", "spread") if bits == 1 else "extremes"
    return uniform.encode(rows, side, axis, bits, int(options.get("group", 32)), rule, float(options.get("spread", 1.25)))
