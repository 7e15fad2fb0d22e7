"""Two plots of a bench: how latencies are distributed, and how they go over time."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgekd.files import write_bytes
from edgekd.pipeline.bench.course import Course
from edgekd.pipeline.bench.render import COURSE, DISTRIBUTION

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 1500
"""Of a curve: of more, medians of as many parts are drawn."""
TAIL = 0.999
"""Where the axis of latencies ends: the slowest thousandth would squeeze the rest."""


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
    with matplotlib.rc_context({"svg.hashsalt": "edgekd", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9.0, 5.0), layout="constrained")
        axes = figure.add_subplot()
        draw(axes, courses)
        axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside lower center", fontsize="small")
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _draw_distribution(axes: Axes, courses: Sequence[Course]) -> None:
    """The share of inferences that took at most so long."""
    for course in courses:
        shares = np.linspace(0, 1, min(MOST_POINTS, len(course.taken_ms)))
        axes.plot(np.quantile(course.taken_ms, shares), 100 * shares, label=course.label, linewidth=1.5)
    least = min(float(course.taken_ms.min()) for course in courses)
    most = max(float(np.quantile(course.taken_ms, TAIL)) for course in courses)
    axes.set_xlim(left=0.95 * least, right=1.02 * most)
    axes.set_xlabel("latency, ms")
    axes.set_ylabel("inferences that took no longer, %")


def _draw_course(axes: Axes, courses: Sequence[Course]) -> None:
    """Latency over the time that was measured; processes stand one after another."""
    for course in courses:
        parts = min(MOST_POINTS, len(course.taken_ms))
        at_s = [float(part[0]) for part in np.array_split(course.at_s, parts)]
        taken_ms = [float(np.median(part)) for part in np.array_split(course.taken_ms, parts)]
        axes.plot(at_s, taken_ms, label=course.label, linewidth=0.8)
    axes.set_ylim(bottom=0, top=1.05 * max(float(np.quantile(course.taken_ms, TAIL)) for course in courses))
    axes.set_xlabel("time measured, s")
    axes.set_ylabel("latency, ms")
