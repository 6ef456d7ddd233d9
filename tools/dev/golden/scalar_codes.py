"""Scalar codebooks and sums in float32, as decoquant.md and turboquant.md describe them."""

import numpy as np

LM = {
    1: (0.0124669466, [64]),
    2: (0.0215773936, [21, 70]),
    3: (0.0244539287, [10, 31, 55, 88]),
    4: (0.026274899, [5, 15, 25, 36, 48, 62, 79, 104]),
}
UNIFORM_STEP = {1: 1.59576905, 2: 0.99568671, 3: 0.586019456, 4: 0.335200608, 6: 0.104063012, 8: 0.0307623744}
SMALLEST = np.float32(1e-30)


def f32(x):
    return np.float32(x)


def magnitudes(code: str, width: int) -> np.ndarray:
    if code == "lm" and width in LM:
        step, steps = LM[width]
        return f32(step) * np.array(steps, np.float32)
    return (np.arange(2 ** (width - 1), dtype=np.float32) + f32(0.5)) * f32(UNIFORM_STEP[width])


def nearest(code: str, width: int, u: np.ndarray):
    """Codes and values nearest to u."""
    values = magnitudes(code, width)
    thresholds = f32(0.5) * (values[1:] + values[:-1])
    m = np.searchsorted(thresholds, np.abs(u), side="left")
    positive = u >= 0
    half = 2 ** (width - 1)
    return np.where(positive, half + m, half - 1 - m), np.where(positive, values[m], -values[m])


def sequential_sum(terms: np.ndarray) -> np.ndarray:
    """Over the last axis, in float32, first to last."""
    total = np.zeros(terms.shape[0], np.float32)
    for column in terms.T:
        total = total + column
    return total


def inverse(x: np.ndarray) -> np.ndarray:
    return np.divide(f32(1), x, out=np.zeros_like(x), where=x > SMALLEST)
