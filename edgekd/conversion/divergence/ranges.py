"""Whether the grids of a graph's quantizers fit the values that they meet.

A grid that calibration found has a step near `amax / 127` (255 steps where it starts at zero and the tool
uses them all), and adds noise of step^2 / 12. Calibrators that cut off outliers make the step smaller,
and pay for it with the values beyond. Both are judged with room, since calibration saw other examples;
what tools share on purpose is explained: one scale for all inputs of a concatenation, and the known range
of a sigmoid.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from edgekd.conversion.divergence.examine import Examined, Met
from edgekd.conversion.divergence.grid import Grid
from edgekd.conversion.divergence.sums import Extent

TOO_COARSE = 2.5
"""Times the step that data give, above which a grid is too coarse: noise 8 dB above what they give."""
TOO_FINE = 0.4
"""Times that step, below which a grid cuts off more than calibrators do, if that harms."""
HARMED, TOO_NOISY = 2.0, 30.0
"""Times the noise of that step: what a fine grid may add, and what any grid may (15 dB)."""
_BOUNDS = {"Sigmoid": 1.0, "HardSigmoid": 1.0, "Softmax": 1.0, "Tanh": 1.0}
_CLOSE = 0.02
"""Relative difference of a range that is the known one."""
_ENOUGH = 3
"""Quantizers that make a habit."""


@dataclass(frozen=True)
class Fit:
    """A grid beside the one that data give."""

    ratio: float
    """Its step in units of the step that data give."""
    excess: float
    """Its noise in units of that of the step that data give."""
    amax: float
    """Largest magnitude that it meets, or that its operator can give."""

    @property
    def is_coarse(self) -> bool:
        """Whether it wastes its codes."""
        return self.ratio > TOO_COARSE

    @property
    def is_noisy(self) -> bool:
        """Whether it cuts off so much that this does more harm than rounding."""
        return self.excess > (HARMED if self.ratio < TOO_FINE else TOO_NOISY)


class Ranges:
    """What the quantizers of a graph meet, and the habits of the tool that placed them."""

    def __init__(self, layers: Iterable[Examined]) -> None:
        self._all = [met for one in layers for met in one.met if met.extent.count]
        self._full = self._uses_all_steps()

    def fit(self, met: Met) -> Fit | None:
        """How a grid fits; None where it meets nothing but zeros."""
        extent = self._explained(met)
        step = self._step(met.grid, extent)
        if step <= 0 or not met.extent.count:
            return None
        noise = met.extent.error / met.extent.count
        return Fit(met.grid.scale / step, noise / (step**2 / 12), extent.amax)

    def stands_out(self, met: Met) -> bool:
        """Whether its zero point is neither 0 nor the middle, as those of its sign are, and fits data less.

        Tools that fit zero points to data have them anywhere for signed values, and 0 for others.
        """
        signed = met.extent.least < 0
        others = [one.grid for one in self._all if one is not met and (one.extent.least < 0) == signed]
        if met.grid.is_symmetric or not others or not all(one.is_symmetric for one in others):
            return False
        low, high = met.grid.codes
        below = -met.extent.least / max(met.extent.most - met.extent.least, 1e-30)
        own = abs((met.grid.zero_point - low) / (high - low) - below)
        return own > min(below, abs(below - 0.5))

    def _explained(self, met: Met) -> Extent:
        """The values that explain a grid: those of all quantizers that share it, and a known range."""
        same = (met.grid.scale, met.grid.zero_point)
        shared = [met, *(one for one in self._all if (one.grid.scale, one.grid.zero_point) == same)]
        return replace(
            met.extent,
            least=min(one.extent.least for one in shared),
            most=max(max(one.extent.most, _known_range(one)) for one in shared),
        )

    def _step(self, grid: Grid, extent: Extent) -> float:
        """The step that data give to a grid with this zero point."""
        low, high = grid.codes
        if grid.starts_at_zero and not self._full:
            return extent.amax / grid.half
        up = extent.most / (high - grid.zero_point) if grid.zero_point < high else 0.0
        down = -extent.least / (grid.zero_point - low) if grid.zero_point > low else 0.0
        return max(up, down)

    def _uses_all_steps(self) -> bool:
        """Whether grids that start at zero use all their steps, rather than as many as centered ones."""
        ratios = [
            met.grid.scale * (met.grid.codes[1] - met.grid.codes[0]) / met.extent.amax
            for met in self._all
            if met.grid.starts_at_zero and met.extent.amax > 0
        ]
        return len(ratios) >= _ENOUGH and float(np.median(ratios)) < np.sqrt(2)


def _known_range(met: Met) -> float:
    """The greatest value that an operator can give, where its grid is made for just that; else 0."""
    known = _BOUNDS.get(met.operation, 0.0)
    low, high = met.grid.codes
    half = met.grid.half
    made_for = (met.grid.scale * steps for steps in (high - low, high - low + 1, half, half + 1))
    return known if any(abs(value - known) < _CLOSE * known for value in made_for) else 0.0
