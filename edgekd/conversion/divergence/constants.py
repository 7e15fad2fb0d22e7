"""A constant of a candidate beside the reference's: a weight, a bias, a factor of a normalization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_WORST_ROUNDING = 20.0
"""Times the mean square of rounding to the grid that data give, above which a weight is another weight."""
Place = tuple[str, int]
"""What an operator makes, and the position of one of its inputs."""
_BARELY = 1.25
"""Room for a grid that ends beyond the largest weight."""
_WIDE = 2**15
FLOAT8_STEPS = 16
"""Steps that round a weight about as much as an 8-bit float with 3 bits behind its point."""
_SAME = 2e-3
"""Relative difference up to which two floats are the same: float16 has half of it."""


@dataclass(frozen=True)
class Coding:
    """How a weight is quantized."""

    steps: int
    """Steps from zero to the end of the grid: 127 for 8 bits, 7 for 4."""
    per_channel: bool
    """Whether every output channel has a scale of its own."""
    largest_scale: float
    """The largest of its scales."""

    @property
    def is_wide(self) -> bool:
        """Whether it is an int32 bias, whose scale is given by what it is added to."""
        return self.steps > _WIDE


DECODED = Coding(1, per_channel=False, largest_scale=0.0)
"""A weight that other operators decode from constants: how finely is not known."""


@dataclass(frozen=True)
class ConstantPair:
    """A constant of the candidate, what its codes mean, and the reference's."""

    places: tuple[Place, Place]
    """Where the candidate and where the reference reads it."""
    role: str
    """`weight`, `bias` or `constant`."""
    candidate: np.ndarray
    """What the candidate's codes mean, laid out as the reference's."""
    reference: np.ndarray
    axis: int | None
    """The axis of the reference's output channels, where it is a weight."""
    coding: Coding | None
    """How the candidate holds it; None for floats."""
    stored_shape: tuple[int, ...]
    """Its shape in the candidate, which may have channels that only fill up."""
    turned: bool
    """Whether the candidate holds its transpose."""

    def as_stored(self, value: np.ndarray) -> np.ndarray:
        """A value in the reference's layout as the candidate would hold it."""
        value = value.T if self.turned else value
        value = value[tuple(slice(size) for size in self.stored_shape)]
        if value.shape != self.stored_shape:
            more = [(0, size - own) for size, own in zip(self.stored_shape, value.shape, strict=True)]
            value = np.pad(value, more)
        return value.astype(self.candidate.dtype)

    @property
    def comparable(self) -> bool:
        """Whether the two have one shape."""
        return self.candidate.shape == self.reference.shape

    @property
    def channels(self) -> tuple[np.ndarray, np.ndarray]:
        """Both as (channels, elements), float64."""
        axis = self.axis
        both = (self.candidate, self.reference)
        if axis is None:
            return tuple(part.astype(np.float64).reshape(1, -1) for part in both)  # type: ignore[return-value]
        moved = (np.moveaxis(part.astype(np.float64), axis, 0) for part in both)
        one, other = (part.reshape(part.shape[0], -1) for part in moved)
        return one, other

    def expected(self) -> np.ndarray:
        """Mean square of the rounding error of each channel of the reference's value, (channels,)."""
        _, reference = self.channels
        largest = np.abs(reference).max(axis=1)
        whole = largest.max(initial=0.0)
        if self.coding is None:
            return np.full_like(largest, (_SAME * whole) ** 2)
        if self.coding.is_wide:
            return np.full_like(largest, max(self.coding.largest_scale**2, (_SAME * whole) ** 2))
        if not self.coding.per_channel:
            largest = np.full_like(largest, whole)
        return np.asarray(np.maximum((largest / self.coding.steps) ** 2 / 12, (1e-4 * whole) ** 2))

    def excess(self) -> np.ndarray:
        """Mean square of the difference of each channel over what is expected, (channels,)."""
        one, other = self.channels
        return np.asarray(((one - other) ** 2).mean(axis=1) / np.maximum(self.expected(), 1e-30))

    @property
    def limit(self) -> float:
        """The excess that is too much."""
        return 1.0 if self.coding is None or self.coding.is_wide else _WORST_ROUNDING

    @property
    def differs(self) -> bool:
        """Whether this is another constant, rather than the reference's in codes."""
        if not self.comparable or self.candidate.size == 0:
            return False
        return (bool((self.excess() > self.limit).any()) and not self._is_rounded) or self.is_lost

    @property
    def _is_rounded(self) -> bool:
        """Whether it is a weight in float that lies on the grid of 8 bits: rounded, and not held in codes."""
        if self.coding is not None or self.role != "weight":
            return False
        one, other = self.channels
        half_steps = np.abs(other).max(axis=1, keepdims=True) / 127 / 2
        return bool((np.abs(one - other) <= _BARELY * half_steps).all())

    @property
    def is_lost(self) -> bool:
        """Whether nothing is left of it, although its codes could have held it."""
        held = 1e-8 if self.coding is None else self.coding.largest_scale
        return not self.candidate.any() and bool(np.abs(self.reference).max(initial=0.0) > held)

    def rounded_reference(self) -> np.ndarray:
        """The reference's value on the grid that its own magnitudes give, as it should be in codes."""
        if self.coding is None or self.coding.is_wide or self.coding == DECODED:
            return self.reference
        largest = np.abs(self.reference).astype(np.float64)
        axis = self.axis if self.coding.per_channel else None
        others = None if axis is None else tuple(i for i in range(largest.ndim) if i != axis % largest.ndim)
        scale = largest.max(axis=others, keepdims=True) / self.coding.steps
        scale = np.where(scale > 0, scale, 1.0)
        return np.asarray(np.rint(self.reference / scale) * scale, dtype=self.reference.dtype)
