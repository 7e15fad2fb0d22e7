"""Two plots of a bench: how latencies are distributed, and how they go over time."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.files import write_bytes
from edgekd.pipeline.bench.course import Course

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DISTRIBUTION, COURSE = "distribution.svg", "course.svg"
"""Names of the plots."""
MOST_POINTS = 1500
"""Of the curve of a distribution."""
MEDIANS = 100
"""Most points of a line over time: each is the median of a part."""
SAMPLES, SAMPLES_OF = 1000, 3
"""Samples that are drawn behind such a line, every k-th one; none of more settings, which would hide them."""
TAIL = 0.999
"""Where the axis of latencies ends: the slowest thousandth would squeeze the rest."""
WIDE = 8.0
"""Longest over shortest latency from which on their axis is logarithmic."""
LEAST_MS = 1e-6
"""A nanosecond: what an axis ends at where a clock of coarse steps saw no time pass."""
_STYLES = ("-", "--", ":", "-.")
_COLORS = 10


def write_plots(courses: Sequence[Course], folder: Path) -> tuple[str, ...]:
    """Write both plots as SVG into a folder; their names. The same courses give the same bytes.

    Raises:
        StorageError: a file cannot be written.
    """
    if not courses:
        return ()
    write_bytes(folder / DISTRIBUTION, _svg(courses, _draw_distribution))
    write_bytes(folder / COURSE, _svg(courses, _draw_course))
    return DISTRIBUTION, COURSE


def _svg(courses: Sequence[Course], draw: Callable[[Axes, Sequence[Course]], None]) -> bytes:
    import matplotlib  # slow to import, and of the extra `plot`
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "edgekd", "svg.fonttype": "none"}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the reader's fonts show the name, not ours
        figure = Figure(figsize=(9.0, 4.5 + 0.25 * len(courses)), layout="constrained")
        axes = figure.add_subplot()
        draw(axes, courses)
        axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside lower center", fontsize="small")
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _draw_distribution(axes: Axes, courses: Sequence[Course]) -> None:
    """The share of inferences that took at most so long."""
    for number, course in enumerate(courses):
        shares = np.linspace(0, 1, min(MOST_POINTS, len(course.taken_ms)))
        taken_ms = np.quantile(course.taken_ms, shares)
        axes.plot(taken_ms, 100 * shares, label=_label(course), linestyle=_style(number), linewidth=1.5)
    least = max(LEAST_MS, min(float(course.taken_ms.min()) for course in courses))
    most = max(least, *(float(np.quantile(course.taken_ms, TAIL)) for course in courses))
    if most > WIDE * least:
        _scale_by_powers(axes)
    axes.set_xlim(left=0.95 * least, right=1.02 * most)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("inferences that took no longer, %")


def _scale_by_powers(axes: Axes) -> None:
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))


def _draw_course(axes: Axes, courses: Sequence[Course]) -> None:
    """Latency over the time that was measured, processes one after another: medians, samples behind them."""
    drawn = [LEAST_MS]
    for number, course in enumerate(courses):
        parts = min(MEDIANS, len(course.taken_ms))
        at_s = [float(np.median(part)) for part in np.array_split(course.at_s, parts)]
        taken_ms = [float(np.median(part)) for part in np.array_split(course.taken_ms, parts)]
        (line,) = axes.plot(at_s, taken_ms, label=_label(course), linestyle=_style(number), linewidth=1.2)
        drawn.append(max(taken_ms))
        if len(courses) <= SAMPLES_OF:
            step = math.ceil(len(course.taken_ms) / SAMPLES)
            at_s, taken_ms = list(course.at_s[::step]), list(course.taken_ms[::step])
            axes.plot(at_s, taken_ms, ".", color=line.get_color(), markersize=2.0, alpha=0.35, zorder=1)
            drawn.append(float(np.quantile(taken_ms, TAIL)))
    axes.set_ylim(bottom=0, top=1.05 * max(drawn))
    axes.set_xlabel("time measured, s")
    axes.set_ylabel("latency, ms")


def _label(course: Course) -> str:
    """The course's label as matplotlib shall show it: no mathematics, nothing hidden, nothing XML refuses."""
    text = "".join(mark if mark.isprintable() else "?" for mark in course.label).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def _style(number: int) -> str:
    """Another style of line once the colors are used up."""
    return _STYLES[number // _COLORS % len(_STYLES)]
