"""Layouts: letters that name the axes of an array, and the one order of them that graphs use."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_SPATIAL = ("", "L", "HW", "DHW")

LAYOUTS = tuple("NC" + axes for axes in _SPATIAL)
"""What a graph's input may be: NC, NCL, NCHW or NCDHW."""


def layout_problems(layout: str) -> list[str]:
    """Why this is no layout; nothing when it is one."""
    axes = "".join(sorted(layout.removeprefix("N").replace("C", "", 1)))
    if layout.startswith("N") and len(layout) > 1 and axes in _SPATIAL:
        return []
    return [f"layout '{layout}': N comes first, then C or not, and nothing else, L, HW or DHW in any order"]


def graph_layout(layout: str) -> str:
    """Channels on axis 1, the other axes in the order D, H, W: NHWC -> NCHW, NL -> NCL."""
    return "NC" + "".join(sorted(layout.removeprefix("N").replace("C", "")))


def to_graph_layout(x: NDArray[Any], layout: str) -> NDArray[Any]:
    """Move the axes of x to the graph's layout; without a C, one channel is added. A view where possible."""
    if "C" not in layout:
        x, layout = x[..., np.newaxis], layout + "C"
    return x.transpose([layout.index(axis) for axis in graph_layout(layout)])
