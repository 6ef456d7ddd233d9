"""The rows that golden blocks are made from, the same to the bit as src/codec/golden_rows.h makes them."""

import numpy as np


def rows(seed: int, dim: int) -> np.ndarray:
    """[64, dim] float32, roughly normal.

    x = (sum of four 21-bit draws - 2^22) / 2^20 of a 64-bit linear congruential generator, token by token; channel c
    times 2^(7c mod 5 - 2); channel 7 is 1.25 in tokens 0..31; token 40 is zero. Every step is exact in float32.
    """
    state = seed
    draws = np.empty(64 * dim * 4, dtype=np.int32)
    for i in range(draws.size):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        draws[i] = state >> 43
    sums = draws.reshape(64, dim, 4).sum(axis=2) - 2**22
    gains = 2.0 ** (7 * np.arange(dim) % 5 - 2 - 20)
    values = (sums * gains).astype(np.float32)
    values[:32, 7] = 1.25
    values[40] = 0.0
    return values
