"""Layouts: every axis ends where the graph wants it."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.layout import LAYOUTS, graph_layout, layout_problems, to_graph_layout

SIZES = {"N": 2, "C": 3, "D": 4, "H": 5, "W": 6, "L": 7}


@pytest.mark.parametrize(
    ("layout", "wanted"),
    [
        ("NC", "NC"),
        ("NL", "NCL"),
        ("NLC", "NCL"),
        ("NCL", "NCL"),
        ("NHW", "NCHW"),
        ("NHWC", "NCHW"),
        ("NCHW", "NCHW"),
        ("NWHC", "NCHW"),
        ("NDHW", "NCDHW"),
        ("NDHWC", "NCDHW"),
        ("NCDHW", "NCDHW"),
    ],
)
def test_axes_move_with_their_letters(layout, wanted):
    assert layout_problems(layout) == []
    assert graph_layout(layout) == wanted
    assert wanted in LAYOUTS
    x = np.arange(np.prod([SIZES[axis] for axis in layout])).reshape([SIZES[axis] for axis in layout])
    moved = to_graph_layout(x, layout)
    assert moved.shape == tuple(1 if axis == "C" and "C" not in layout else SIZES[axis] for axis in wanted)
    index = {"N": 1, "C": 2, "D": 3, "H": 4, "W": 2, "L": 5}
    there = tuple(0 if axis == "C" and "C" not in layout else index[axis] for axis in wanted)
    assert moved[there] == x[tuple(index[axis] for axis in layout)]


@pytest.mark.parametrize(
    "layout", ["N", "NH", "NHH", "NCC", "NHWL", "NXY", "HWC", "CHW", "", "NLHW", "NHWCN"]
)
def test_other_letters_are_refused(layout):
    assert layout_problems(layout) == [
        f"layout '{layout}': N comes first, then C or not, and nothing else, L, HW or DHW in any order"
    ]
