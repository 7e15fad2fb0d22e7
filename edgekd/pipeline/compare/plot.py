"""The plot of a comparison: each arm's difference to ce, with its interval and its seeds."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.documents.comparison import ArmResult, Comparison, Difference
from edgekd.files import write_bytes
from edgekd.pipeline.compare.arms import CE, RANDOM_TEACHER

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLORS = {"above": "#1b7837", "below": "#b2182b", "cannot tell": "#737373"}

_LONGEST_LABEL = 40
"""Characters."""


def write_plot(comparison: Comparison, path: Path) -> None:
    """Write the plot as SVG; the same comparison gives the same bytes.

    Raises:
        StorageError: the file cannot be written.
    """
    import matplotlib  # slow to import, and of the extra `train`
    from matplotlib.figure import Figure

    (control,) = [arm for arm in comparison.arms if arm.name == CE]
    arms = [arm for arm in comparison.arms if arm is not control]
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "edgekd", "svg.fonttype": "none"}):
        figure = Figure(figsize=(7.0, 1.2 + 0.4 * len(arms)), layout="constrained")
        axes = figure.add_subplot()
        axes.set_xlim(*_range(arms))
        axes.set_ylim(len(arms) - 0.5, -0.5)
        for row, arm in enumerate(arms):
            _draw(axes, row, arm, control)
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_yticks(range(len(arms)), [_label(arm.name) for arm in arms])
        axes.set_xlabel(f"test top-1, points above {CE} ({comparison.test_examples} examples)")
        seeds = "1 seed" if len(comparison.seeds) == 1 else f"{len(comparison.seeds)} seeds"
        axes.set_title(f"{comparison.name}: {seeds}, {comparison.epochs} epochs")
        figure.savefig(content, format="svg", metadata={"Date": None})
    write_bytes(path, content.getvalue())


def _label(name: str) -> str:
    """An arm's name beside its row, shortened so that room is left for the plot; the table has it whole."""
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"


def _range(arms: Sequence[ArmResult]) -> tuple[float, float]:
    """What the axis shows: every arm but the random teacher, which is often far away; in points."""
    beside = [_beside_ce(arm) for arm in arms if arm.name != RANDOM_TEACHER or len(arms) == 1]
    lower = min(0.0, *(100 * one.interval.lower for one in beside))
    upper = max(0.0, *(100 * one.interval.upper for one in beside))
    margin = 0.1 * (upper - lower) or 1.0
    return lower - margin, upper + margin


def _draw(axes: Axes, row: int, arm: ArmResult, control: ArmResult) -> None:
    """The mean with its interval, and the seeds as dots; an arm beyond the axis as a number at its end."""
    beside = _beside_ce(arm)
    color, mean = _COLORS[beside.finding], 100 * beside.mean
    left, right = axes.get_xlim()
    if not left < mean < right:
        end, side = (left, "left") if mean < left else (right, "right")
        axes.text(end, row, f" {mean:+.1f} ", color=color, ha=side, va="center")
        return
    axes.plot(
        [100 * beside.interval.lower, 100 * beside.interval.upper], [row, row], color=color, linewidth=2
    )
    axes.plot([mean], [row], "D", color=color)
    seeds = [
        100 * (one.test_top1 - other.test_top1) for one, other in zip(arm.seeds, control.seeds, strict=True)
    ]
    axes.plot(seeds, [row] * len(seeds), "o", color=color, alpha=0.4, markersize=4)


def _beside_ce(arm: ArmResult) -> Difference:
    return next(one for one in arm.differences if one.to == CE)
