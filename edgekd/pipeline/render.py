"""The report as Markdown, for people and pull requests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from edgekd.documents.common import Interval
from edgekd.documents.report import Report, Row
from edgekd.documents.verdict import Check
from edgekd.units import format_bytes, format_ms, format_percent

ROW_HEADINGS = ("network", "top-1", "interval", "p50", "p90", "p99", "size", "int8 / weighted ops")
CHECK_HEADINGS = ("check", "target", "value", "limit", "outcome", "why")


def to_markdown(report: Report) -> str:
    """The whole report."""
    parts = [
        f"# {report.name}: {report.verdict}",
        _rows(report),
        "## Checks\n\n" + table(CHECK_HEADINGS, map(check_cells, report.checks)),
        _lines("## Notes", report.notes),
        _lines("## Not done", report.not_done),
        _lines("## Warnings", warnings_of(report)),
        _lines(
            "## Engines",
            [f"SM {engine.sm or 'of the GPU at hand'}: {engine.note}" for engine in report.engines],
        ),
        _environment(report),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def warnings_of(report: Report) -> list[str]:
    """Why latencies of the report do not count, and what makes its figures less certain."""
    invalid = [f"latencies do not count: {line}" for one in report.measurements for line in one.invalid]
    return [*invalid, *(line for one in report.measurements for line in one.warnings)]


def row_cells(row: Row) -> tuple[str, ...]:
    """One network, as the cells of a table."""
    latency = row.latency_ms
    return (
        row.name,
        "-" if row.top1 is None else format_percent(row.top1),
        "-" if row.top1_interval is None else _interval(row.top1_interval),
        "-" if latency is None else _bounded(latency.p50, latency.p50_upper),
        "-" if latency is None else _bounded(latency.p90, latency.p90_upper),
        "-" if latency is None or latency.p99 is None else format_ms(latency.p99),
        format_bytes(row.size_bytes),
        "-" if row.int8_ops is None else f"{row.int8_ops} / {row.weighted_ops}",
    )


def check_cells(check: Check) -> tuple[str, ...]:
    """One check, as the cells of a table."""
    unit = f" {check.unit}" if check.unit else ""
    value = "-" if check.value is None else f"{check.value:.4g}{unit}"
    return (check.name, check.target, value, f"{check.limit:.4g}{unit}", check.outcome, check.reason)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; pipes and line breaks in cells are escaped."""
    lines = [" | ".join(headings), " | ".join("---" for _ in headings)]
    lines += [" | ".join(_escape(cell) for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _rows(report: Report) -> str:
    sections = []
    for measurement in report.measurements:
        target = f"{measurement.profile}/{measurement.runtime}"
        rows = [row_cells(row) for row in report.rows if row.target == target]
        latency = next((one.latency for one in measurement.subjects if one.latency), None)
        how = (
            ""
            if latency is None
            else f"\n\n{latency.samples} samples or more in {latency.processes} processes, batch "
            f"{latency.batch_size}, {latency.threads} thread(s); after ≤ the upper bound at "
            f"{100 * latency.confidence:.0f} %. {measurement.facts.cpu}, {measurement.facts.system}."
        )
        sections.append(f"## {target}\n\n" + table(ROW_HEADINGS, rows) + how)
    return "\n\n".join(sections)


def _environment(report: Report) -> str:
    packages = ", ".join(f"{name} {version}" for name, version in report.versions.packages.items())
    commit = f", commit {report.versions.edgekd_commit}" if report.versions.edgekd_commit else ""
    stages = ", ".join(f"{stage.name} {stage.seconds:.1f} s" for stage in report.stages)
    return f"## Provenance\n\nPython {report.versions.python}, {packages}{commit}.\n\nStages: {stages}."


def _lines(heading: str, lines: Sequence[str]) -> str:
    return f"{heading}\n\n" + "\n".join(f"- {line}" for line in lines) if lines else ""


def _bounded(value_ms: float | None, upper_ms: float | None) -> str:
    if value_ms is None or upper_ms is None:
        return "-"
    return f"{format_ms(value_ms)} ≤ {format_ms(upper_ms)}"


def _interval(interval: Interval) -> str:
    return f"{100 * interval.lower:.1f} to {100 * interval.upper:.1f} ({100 * interval.confidence:.0f} %)"


def _escape(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")
