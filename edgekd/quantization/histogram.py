"""A histogram of the magnitudes of one tensor, filled batch by batch.

Its bins are equal and reach from 0 to the least power of two above the largest magnitude so far. When a batch
goes beyond, neighboring bins are merged until it fits. Bins of such widths nest exactly, so that the result
depends neither on the order of the examples nor on how they were divided into batches.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

BINS = 8192
"""Bins in all; the largest magnitude lies in the upper half of them."""
_LEAST_EXPONENT = -12
"""Smaller tensors get the scheme's smallest scale whatever their distribution is."""


class Magnitudes:
    """What a tensor's magnitudes were: the largest, how many, and their histogram."""

    def __init__(self) -> None:
        self.amax = 0.0
        """The largest magnitude; NaN or infinite when the tensor was not finite, and then for good."""
        self._exponent = _LEAST_EXPONENT
        self._counts_B = torch.zeros(BINS, dtype=torch.int64)

    def add(self, x: Tensor, *, binned: bool = True) -> None:
        """Take in a batch of any shape; without `binned` only its largest magnitude."""
        magnitude = x.detach().abs().float().flatten()
        batch_amax = float(magnitude.amax())
        if not self.amax >= batch_amax:  # also when either is NaN
            self.amax = math.nan if math.isnan(self.amax) else batch_amax
        if not binned or not math.isfinite(self.amax):
            return
        self._reach(self.amax)
        bins = (magnitude * (BINS * 2.0**-self._exponent)).to(
            torch.int64
        )  # exact: the factor is a power of two
        self._counts_B += torch.bincount(bins, minlength=BINS).cpu()

    def _reach(self, amax: float) -> None:
        """Merge bins until `amax` lies within them."""
        while math.frexp(amax)[1] > self._exponent:
            merged = self._counts_B.view(-1, 2).sum(dim=1)
            self._counts_B = torch.cat([merged, torch.zeros_like(merged)])
            self._exponent += 1

    @property
    def width(self) -> float:
        """Width of a bin."""
        return 2.0**self._exponent / BINS

    @property
    def counts(self) -> NDArray[np.int64]:
        """How many magnitudes lay in each bin, up to the bin of the largest, (B,)."""
        counts_B: NDArray[np.int64] = self._counts_B.numpy()
        return counts_B[: math.floor(self.amax / self.width) + 1]
