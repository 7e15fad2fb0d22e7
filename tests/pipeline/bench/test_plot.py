"""Plots: whole XML, the same bytes for the same samples, and names as they are."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from edgekd.pipeline.bench.course import Course
from edgekd.pipeline.bench.plot import write_plots

pytest.importorskip("matplotlib")


def course(label="g", taken_ms=None, phase=""):
    taken_ms = (
        np.random.default_rng(0).lognormal(0, 0.1, 300) if taken_ms is None else np.asarray(taken_ms, float)
    )
    return Course(label, phase, np.cumsum(taken_ms) / 1e3, taken_ms)


def texts(path):
    """All that is written in a plot."""
    root = ElementTree.fromstring(path.read_text())
    return ["".join(one.itertext()) for one in root.iter("{http://www.w3.org/2000/svg}text")]


def drawn(folder, *courses):
    assert write_plots(courses, folder) == ("distribution.svg", "course.svg")
    return texts(folder / "distribution.svg"), texts(folder / "course.svg")


def test_plots_name_their_axes_and_courses(tmp_path):
    distribution, over_time = drawn(tmp_path, course("one"), course("two"))
    assert {"latency, ms", "inferences that took no longer, %", "one", "two"} <= set(distribution)
    assert {"latency, ms", "time measured, s", "one", "two"} <= set(over_time)


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        drawn(tmp_path / name, course())
    for name in ("distribution.svg", "course.svg"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        ("$x$ a_b^c", "$x$ a_b^c"),
        ("$\\broken{", "$\\broken{"),
        ("_hidden", "_hidden"),
        ("<&> \"'", "<&> \"'"),
        ("図.onnx", "図.onnx"),
        ("bell\a\ud800", "bell??"),
    ],
)
def test_names_are_shown_as_they_are(tmp_path, label, shown):
    for found in drawn(tmp_path, course(label)):
        assert shown in [text.strip() for text in found]


def test_nothing_to_draw(tmp_path):
    assert write_plots((), tmp_path) == ()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("taken_ms", [[1.0], [0.0] * 40, [1.0] * 40, [1e-6] * 40, [1.0, 1e6] * 400])
def test_odd_samples_are_drawn(tmp_path, taken_ms):
    drawn(tmp_path, course(taken_ms=taken_ms))


def test_a_wide_axis_is_logarithmic_with_plain_numbers(tmp_path):
    wide, _ = drawn(tmp_path, course(taken_ms=np.geomspace(0.6, 40, 500)))
    assert {"1", "2", "5", "10", "20"} <= set(wide)
    narrow, _ = drawn(tmp_path, course(taken_ms=np.linspace(1, 2, 500)))
    assert {"1.0", "1.2", "1.4"} <= set(narrow)


def test_the_slowest_thousandth_does_not_squeeze_the_rest(tmp_path):
    taken_ms = np.append(np.linspace(1, 2, 5000), 500)
    assert "1.4" in drawn(tmp_path, course(taken_ms=taken_ms))[0]


def test_long_courses_stay_small(tmp_path):
    drawn(tmp_path, *(course(f"g{index}", np.linspace(1, 2, 50_000)) for index in range(12)))
    assert all(path.stat().st_size < 1_000_000 for path in tmp_path.iterdir())
