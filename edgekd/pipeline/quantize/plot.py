"""The Pareto plot of the arms: top-1 over latency, with intervals; the area of a mark is the file's size."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.documents.arms import Arms, QuantizedArmResult
from edgekd.files import write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LARGEST_MARK = 220.0
"""Points squared."""


def write_plot(arms: Arms, path: Path) -> None:
    """Write the plot as SVG; the same arms give the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    import matplotlib  # slow to import, and of the extra `train`
    from matplotlib.figure import Figure

    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "edgekd", "svg.fonttype": "none"}):
        figure = Figure(figsize=(9.0, 5.5), layout="constrained")
        axes = figure.add_subplot()
        largest = max(arm.size_bytes for arm in arms.arms)
        for number, arm in enumerate(arms.arms):
            _draw(axes, arm, f"C{number % 10}", largest)
        _draw_front(axes, arms)
        axes.set_xlabel(f"latency p50 on {arms.runtime}, ms")
        axes.set_ylabel("test top-1, %")
        axes.set_title(f"{arms.name}: {arms.arms[0].accuracy.count} test examples")
        figure.legend(loc="outside right upper", fontsize="small")
        figure.savefig(content, format="svg", metadata={"Date": None})
    write_bytes(path, content.getvalue())


def _draw(axes: Axes, arm: QuantizedArmResult, color: str, largest: int) -> None:
    accuracy, p50 = arm.accuracy, arm.latency_ms.p50
    lower, upper = 100 * accuracy.interval.lower, 100 * accuracy.interval.upper
    axes.plot([p50, p50], [lower, upper], color=color, linewidth=1, alpha=0.5)
    axes.scatter(
        [p50],
        [100 * accuracy.top1],
        s=_LARGEST_MARK * arm.size_bytes / largest,
        color=color,
        edgecolors="black" if arm.ships else color,
        linewidths=1.5 if arm.ships else 0.5,
        label=f"{arm.name} (ships)" if arm.ships else arm.name,
        zorder=3,
    )


def _draw_front(axes: Axes, arms: Arms) -> None:
    """The steps of the front in top-1 and latency."""
    front, best = [], -1.0
    for arm in sorted(arms.arms, key=lambda arm: (arm.latency_ms.p50, -arm.accuracy.top1)):
        if arm.accuracy.top1 > best:
            best = arm.accuracy.top1
            front.append((arm.latency_ms.p50, 100 * best))
    axes.step(
        [x for x, _ in front], [y for _, y in front], where="post", color="0.6", linestyle="--", linewidth=1
    )
