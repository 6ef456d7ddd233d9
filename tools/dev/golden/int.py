"""Golden blocks of `int`, written from src/codec/int/int.md."""

import uniform


def encode(rows, side: str, options: dict) -> bytes:
    """rows [64, dim] float32; side "k" or "v"; options as in scheme text, {"bits": "4", "axis": "token"}."""
    dim = rows.shape[1]
    axis = options.get("axis", "auto")
    if axis == "auto":
        axis = "channel" if side == "k" else "token"
    group = options.get("group", "auto")
    if group == "auto":
        group = 64 if axis == "channel" else 128 if dim % 128 == 0 else dim
    elif group == "head":
        group = dim
    return uniform.encode(rows, side, axis, int(options.get("bits", 4)), int(group))
