"""Bias-corrected exponential smoothing, as TensorBoard draws it, without a Python loop over the points."""

from __future__ import annotations

import numpy as np

from app.viewmodels.pyramid import Floats

MAX_WEIGHT = 0.99
_BLOCK = 64


class Smoother:
    """An exponential moving average that takes its values in pieces.

    ``average[i] = weight · average[i-1] + (1 - weight) · value[i]``, divided by ``1 - weight^(i+1)`` so that the
    start is not pulled to zero (Kingma & Ba, 2015, section 3). Values that are not finite come out as NaN and are
    passed over.
    """

    def __init__(self, weight: float) -> None:
        self.weight = min(max(weight, 0.0), MAX_WEIGHT)
        self._average = 0.0
        self._count = 0

    def feed(self, values: Floats) -> Floats:
        """Return the smoothed values for the next piece of values."""
        is_finite = np.isfinite(values)
        finite = values[is_finite]
        smoothed = np.full(len(values), np.nan)
        if len(finite):
            powers = np.power(self.weight, np.arange(1, len(finite) + 1))
            averages = (1 - self.weight) * _decayed_sums(finite, self.weight) + powers * self._average
            smoothed[is_finite] = averages / (1 - powers * self.weight**self._count)
            self._average = float(averages[-1])
            self._count += len(finite)
        return smoothed

    def rewind(self, smoothed: Floats) -> None:
        """Go back to the state after only these smoothed values had come out."""
        finite = smoothed[np.isfinite(smoothed)]
        self._count = len(finite)
        self._average = float(finite[-1]) * (1 - self.weight**self._count) if len(finite) else 0.0


def _decayed_sums(values: Floats, weight: float) -> Floats:
    """Return ``s[i] = weight · s[i-1] + values[i]``: blocks times a triangle, then the same over the blocks."""
    num_blocks = -(-len(values) // _BLOCK)
    padded = np.zeros(num_blocks * _BLOCK)
    padded[: len(values)] = values
    exponents = np.subtract.outer(np.arange(_BLOCK), np.arange(_BLOCK))
    triangle = np.where(exponents >= 0, np.power(weight, np.maximum(exponents, 0)), 0.0)
    sums: Floats = padded.reshape(num_blocks, _BLOCK) @ triangle.T
    if num_blocks > 1:
        carried = np.zeros(num_blocks)
        carried[1:] = _decayed_sums(sums[:-1, -1].copy(), weight**_BLOCK)
        sums += np.outer(carried, np.power(weight, np.arange(1, _BLOCK + 1)))
    return sums.ravel()[: len(values)]
