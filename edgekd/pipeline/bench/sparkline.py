"""A series as a line of bars, for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

BARS = "▁▂▃▄▅▆▇█"
CELLS = 32
LEAST_HEIGHT = 0.1
"""Share of its level that a series must span for the full height: noise shall not look like a mountain."""


def sparkline(values: Sequence[float] | npt.NDArray[np.float64], cells: int = CELLS) -> str:
    """Medians of equal parts of a series as bars, from its least part to its largest; '' for too few."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < cells:
        return ""
    parts = [float(np.median(part)) for part in np.array_split(found, cells)]
    least = min(parts)
    height = max(max(parts) - least, LEAST_HEIGHT * least)
    if height <= 0:  # a clock of coarse steps saw no time pass
        return BARS[0] * cells
    return "".join(BARS[min(len(BARS) - 1, int((part - least) / height * len(BARS)))] for part in parts)
