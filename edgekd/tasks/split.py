"""The stratified split: a fixed part of each class is held out, chosen by the seed alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]


def stratified_split(y: NDArray[np.int64], fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Indices that are kept and indices that are held out, each in ascending order.

    Of a class with n examples `round(fraction * n)` are held out, but at least 1 and at most n - 1, so that
    each class is in both parts.

    Args:
        y: labels (N,), each class with at least 2 examples.
        fraction: the part to hold out, between 0 and 1.
        seed: of the choice.
    """
    _, class_of, counts = np.unique(y, return_inverse=True, return_counts=True)
    held_of_class = np.clip(np.rint(fraction * counts).astype(np.int64), 1, counts - 1)
    # Rank every example within its class by a random number; the lowest ranks are held out.
    order = np.lexsort((np.random.default_rng(seed).random(len(y)), class_of))
    first_of_class = np.cumsum(counts) - counts
    rank = np.empty(len(y), dtype=np.int64)
    rank[order] = np.arange(len(y)) - first_of_class[class_of[order]]
    held = rank < held_of_class[class_of]
    return np.flatnonzero(~held), np.flatnonzero(held)
