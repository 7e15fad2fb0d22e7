"""A comparison as cells of a table and as Markdown, for people and pull requests."""

from __future__ import annotations

from edgekd.documents.comparison import ArmResult, Comparison, Difference
from edgekd.pipeline.compare.arms import CE, KD
from edgekd.pipeline.render import table
from edgekd.units import format_percent, format_points

PLOT = "comparison.svg"


def headings(comparison: Comparison) -> tuple[str, ...]:
    """The columns of the table; those beside kd only where it is an arm."""
    beside = [column for to in _references(comparison) for column in (f"to {to}", "95 %", "finding")]
    return ("arm", "test top-1", "spread", *beside, "seconds")


def cells(comparison: Comparison, arm: ArmResult) -> tuple[str, ...]:
    """One arm, as the cells of a row."""
    beside = {one.to: one for one in arm.differences}
    columns = [cell for to in _references(comparison) for cell in _difference_cells(beside.get(to))]
    seconds = f"{arm.seconds:.1f}" + (f" + {arm.head_seconds:.1f}" if arm.head_seconds else "")
    spread = "-" if arm.spread is None else f"{100 * arm.spread:.2f} pt"
    return (arm.name, format_percent(arm.test_top1), spread, *columns, seconds)


def to_markdown(comparison: Comparison) -> str:
    """The whole comparison."""
    rows = [cells(comparison, arm) for arm in comparison.arms]
    parts = [
        f"# {comparison.name}: {len(rows)} ways to train one student",
        table(headings(comparison), rows),
        f"![Difference to {CE} of every arm]({PLOT})",
        "\n".join(f"- {line}" for line in (*comparison.flags, *comparison.notes)),
        "## Seeds\n\n" + table(_SEED_HEADINGS, [row for arm in comparison.arms for row in _seed_rows(arm)]),
        _environment(comparison),
    ]
    return "\n\n".join(parts) + "\n"


_SEED_HEADINGS = ("arm", "seed", "test top-1", "validation top-1", "best epoch", "seconds")


def _references(comparison: Comparison) -> tuple[str, ...]:
    """The arms that all others are put beside."""
    names = {arm.name for arm in comparison.arms}
    return tuple(name for name in (CE, KD) if name in names)


def _difference_cells(difference: Difference | None) -> tuple[str, str, str]:
    if difference is None:
        return "-", "-", "-"
    lower, upper = (100 * end for end in (difference.interval.lower, difference.interval.upper))
    return format_points(difference.mean), f"{lower:+.2f} to {upper:+.2f}", difference.finding


def _seed_rows(arm: ArmResult) -> list[tuple[str, ...]]:
    return [
        (
            arm.name if one.label_weight is None else f"{arm.name} (label_weight {one.label_weight:.3f})",
            str(one.seed),
            format_percent(one.test_top1),
            format_percent(one.validation_top1),
            str(one.best_epoch),
            f"{one.seconds:.1f}",
        )
        for one in arm.seeds
    ]


def _environment(comparison: Comparison) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in comparison.versions.packages.items())
    commit = f", commit {comparison.versions.edgekd_commit}" if comparison.versions.edgekd_commit else ""
    machine = f"{comparison.facts.cpu or comparison.facts.machine}, {comparison.facts.system}"
    return f"## Provenance\n\n{machine}. Python {comparison.versions.python}, {packages}{commit}."
