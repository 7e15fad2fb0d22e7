"""The arms of quantization as cells of a table and as Markdown."""

from __future__ import annotations

from edgekd.documents.arms import Arms, QuantizedArmResult
from edgekd.documents.common import Interval
from edgekd.pipeline.render import table
from edgekd.units import format_bytes, format_ms, format_percent, format_points

PLOT = "arms.svg"
HEADINGS = (
    *("arm", "top-1", "interval", "to fp32", "95 %", "p50", "to fp32 ", "size", "int8 ops", "made in", ""),
)


def cells(arm: QuantizedArmResult) -> tuple[str, ...]:
    """One arm, as the cells of a row; `ships` marks what the recipe ships, `front` what nothing dominates."""
    change, ratio = arm.change, arm.ratio
    marks = [mark for mark, holds in (("ships", arm.ships), ("front", arm.on_front)) if holds]
    return (
        arm.name,
        format_percent(arm.accuracy.top1),
        _percent(arm.accuracy.interval, ".1f"),
        "-" if change is None else format_points(change.mean),
        "-"
        if change is None
        else f"{100 * change.interval.lower:+.2f} to {100 * change.interval.upper:+.2f}",
        format_ms(arm.latency_ms.p50),
        "-" if ratio is None else f"{ratio.value:.2f}",
        format_bytes(arm.size_bytes),
        f"{arm.int8_ops} / {arm.weighted_ops}",
        f"{arm.seconds:.1f} s" if arm.seconds else "-",
        ", ".join(marks),
    )


def _percent(interval: Interval, form: str) -> str:
    return f"{100 * interval.lower:{form}} to {100 * interval.upper:{form}}"


def to_markdown(arms: Arms) -> str:
    """The whole table."""
    parts = [
        f"# {arms.name}: {len(arms.arms)} ways to ship one student",
        table(HEADINGS, [cells(arm) for arm in arms.arms]),
        f"![Top-1 over latency, the area of a mark is the file's size]({PLOT})",
        "\n".join(f"- {line}" for line in (*arms.notes, *arms.not_done)),
        "## Arms\n\n" + table(_DETAIL_HEADINGS, [_details(arm) for arm in arms.arms]),
        "\n".join(["## Warnings\n", *(f"- {line}" for line in arms.warnings)]) if arms.warnings else "",
        _environment(arms),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


_DETAIL_HEADINGS = ("arm", "what it is", "validation top-1", "agreement with what was trained")


def _details(arm: QuantizedArmResult) -> tuple[str, ...]:
    validation = "-" if arm.validation_top1 is None else format_percent(arm.validation_top1)
    return arm.name, arm.description, validation, format_percent(arm.agreement)


def _environment(arms: Arms) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in arms.versions.packages.items())
    commit = f", commit {arms.versions.edgekd_commit}" if arms.versions.edgekd_commit else ""
    first = arms.arms[0]
    how = (
        f"{first.accuracy.count} test examples; latency of one example at a time, "
        f"{first.latency_ms.samples} samples or more in {first.latency_ms.processes} processes."
    )
    machine = f"{arms.facts.cpu or arms.facts.machine}, {arms.facts.system}, {arms.runtime}"
    return f"## Provenance\n\n{how} {machine}. Python {arms.versions.python}, {packages}{commit}."
