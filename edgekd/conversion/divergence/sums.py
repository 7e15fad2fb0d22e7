"""Sums over batches, so that no more than one batch of tensors is held at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EXACT_DB = 140.0
"""Ratios above this are those of rounding in float32: no difference."""


@dataclass
class Difference:
    """How far a tensor is from its reference."""

    count: int = 0
    power: float = 0.0
    """Sum of the reference's squares."""
    other: float = 0.0
    """Sum of the other's squares."""
    product: float = 0.0
    """Sum of reference times other."""
    error: float = 0.0
    """Sum of squared differences."""
    total: float = 0.0
    """Sum of absolute differences."""
    most: float = 0.0
    """Largest absolute difference."""

    def add(self, reference: np.ndarray, other: np.ndarray) -> None:
        """Take in a batch; both have one shape."""
        one, two = reference.astype(np.float64).ravel(), other.astype(np.float64).ravel()
        gap = np.abs(one - two)
        self.count += gap.size
        self.power += _sum_of_products(one, one)
        self.other += _sum_of_products(two, two)
        self.product += _sum_of_products(one, two)
        self.error += _sum_of_products(gap, gap)
        self.total += float(gap.sum())
        self.most = max(self.most, float(gap.max(initial=0.0)))

    @property
    def is_finite(self) -> bool:
        """Whether every value was a finite number."""
        return math.isfinite(self.power + self.error)

    @property
    def sqnr_db(self) -> float | None:
        """Power of the reference over that of the difference, in decibels; None where they do not differ."""
        return decibels(self.power, self.error)

    @property
    def cosine(self) -> float | None:
        """Cosine of the angle between the two; None where one is zero."""
        norm = math.sqrt(self.power * self.other)
        return max(-1.0, min(1.0, self.product / norm)) if norm > 0 and math.isfinite(norm) else None

    def mean(self, part: float) -> float:
        """A sum as the mean over all elements."""
        return part / self.count if self.count else 0.0


@dataclass
class Extent:
    """What values a quantizer meets, and what it does to them."""

    count: int = 0
    least: float = 0.0
    most: float = 0.0
    """Both include zero."""
    error: float = 0.0
    """Sum of the squared differences that its grid makes."""
    at_low: int = 0
    at_high: int = 0
    """Elements whose code is at an end of the grid although their value lies beyond it."""

    def add(self, x: np.ndarray, rounded: np.ndarray, limits: tuple[float, float], step: float) -> None:
        """Take in values, what the grid makes of them, and where it ends."""
        gap = (x.astype(np.float64) - rounded).ravel()
        self.count += gap.size
        self.least = min(self.least, float(x.min(initial=0.0)))
        self.most = max(self.most, float(x.max(initial=0.0)))
        self.error += _sum_of_products(gap, gap)
        self.at_low += int((x < limits[0] - step / 2).sum())
        self.at_high += int((x > limits[1] + step / 2).sum())

    @property
    def amax(self) -> float:
        """Largest magnitude."""
        return max(-self.least, self.most)

    @property
    def saturated(self) -> float:
        """Share of the values that lie beyond the grid."""
        return (self.at_low + self.at_high) / self.count if self.count else 0.0


def decibels(power: float, error: float) -> float | None:
    """10 log10 (power / error), between -EXACT_DB and EXACT_DB; None where there is no error."""
    if not (math.isfinite(power) and math.isfinite(error)):
        return -EXACT_DB
    if error <= 0 or power >= error * 10 ** (EXACT_DB / 10):
        return None
    return max(-EXACT_DB, 10 * math.log10(power / error)) if power > 0 else -EXACT_DB


def _sum_of_products(one: np.ndarray, other: np.ndarray) -> float:
    """As `one @ other`, but in this thread: a linear algebra library would start threads of its own."""
    return float(np.einsum("i,i->", one, other))
