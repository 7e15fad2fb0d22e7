"""What a bench found as tables, lines of text, and Markdown.

A table has the columns in which its rows differ; what they share is said once, with the details.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from edgekd.documents.bench import Bench, Row, Setting, SideBySide
from edgekd.documents.measurement import Comparison
from edgekd.pipeline.bench.course import Course
from edgekd.pipeline.bench.details import (
    Details,
    bounded,
    details_of,
    details_of_pair,
    latency_of,
    split,
)
from edgekd.pipeline.render import table
from edgekd.units import format_ms, format_percent

FIGURES = ("quiet", "p50", "p90", "p99")
FOUND = ("ratio", "interval", "found")
_WAYS = {"device": "device", "runtime": "runtime", "threads": "threads", "batch": "batch_size"}
"""Heading of each way to run a graph, and its key in a Setting."""

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def measured_table(rows: Sequence[Row]) -> Table:
    """The latency of each setting: headings and cells."""
    ways = _differing([row.setting for row in rows])
    cells = [(row.setting.graph, *_ways(row.setting, ways), *_figures(row)) for row in rows]
    return ("graph", *ways, *FIGURES), cells


def compared_table(pairs: Sequence[SideBySide]) -> Table:
    """The ratio of each comparison: headings and cells."""
    ways = _differing([pair.setting for pair in pairs])
    cells = [
        (pair.setting.graph, pair.reference, *_ways(pair.setting, ways), *_found(pair.comparison))
        for pair in pairs
    ]
    return ("graph", "to", *ways, *FOUND), cells


def _differing(settings: Sequence[Setting]) -> tuple[str, ...]:
    return tuple(
        name for name, key in _WAYS.items() if len({getattr(setting, key) for setting in settings}) > 1
    )


def _ways(setting: Setting, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(
        short(setting.device) if name == "device" else str(getattr(setting, _WAYS[name])) for name in names
    )


def short(address: str) -> str:
    """An address without its options; the details have it whole."""
    return address.partition("?")[0]


def _figures(row: Row) -> tuple[str, ...]:
    if row.measurement is None:
        return ("-",) * len(FIGURES)
    latency = latency_of(row.measurement)
    quiet = "-" if latency.quiet is None else format_ms(latency.quiet.value_ms)
    return quiet, bounded(latency.p50), bounded(latency.p90), bounded(latency.p99)


def _found(found: Comparison | None) -> tuple[str, ...]:
    if found is None:
        return ("-",) * len(FOUND)
    interval = found.interval
    bounds = f"{interval.lower:.3f} to {interval.upper:.3f} ({format_percent(interval.confidence, 0)})"
    return f"{found.ratio:.3f}", bounds, found.outcome


def details(bench: Bench, courses: Sequence[Sequence[Course]]) -> Iterator[tuple[str, Details]]:
    """What else is known, in parts: a title and its lines. The part without a title is of all of them."""
    rows = [(title_of(row.setting), details_of(row, of)) for row, of in zip(bench.rows, courses, strict=True)]
    pairs = [(title_of(pair.setting), details_of_pair(pair)) for pair in bench.comparisons]
    parts = [(title, found) for title, found in (*rows, *pairs) if found]
    same, left = split([found for _, found in parts])
    if same:
        yield "", same
    yield from ((title, rest) for (title, _), rest in zip(parts, left, strict=True) if rest)


def title_of(setting: Setting) -> str:
    """A setting in a line."""
    batch = "" if setting.batch_size == 1 else f", batch {setting.batch_size}"
    threads = "1 thread" if setting.threads == 1 else f"{setting.threads} threads"
    return f"{setting.graph}, {setting.runtime} on {short(setting.device)}, {threads}{batch}"


def problems(bench: Bench) -> tuple[str, ...]:
    """Each line that a reader must not miss: why figures do not count, then what makes them less certain.

    Lines that differ in their numbers alone, as those of two settings, are said once.
    """
    lines: list[str] = []
    for row in bench.rows:
        if row.measurement is not None:
            name = title_of(row.setting)
            lines += (f"{name}: invalid: {line}" for line in row.measurement.invalid)
            lines += (f"{name}: not {row.measurement.profile}: {line}" for line in row.measurement.mismatches)
    for pair in bench.comparisons:
        name = title_of(pair.setting)
        lines += (f"{name}: invalid: {line}" for line in pair.invalid)
        lines += (f"{name}: another device: {line}" for line in pair.mismatches)
    said: dict[str, str] = {}
    for one in (*(row.measurement for row in bench.rows), *bench.comparisons):
        for line in one.warnings if one is not None else ():
            said.setdefault(re.sub(r"[0-9.]+", "#", line), line)
    return (*lines, *said.values())


def errors(bench: Bench) -> Iterator[tuple[str, str]]:
    """What could not be measured: the setting and why."""
    for one in bench.results:
        if one.error is not None:
            yield title_of(one.setting), one.error


def to_markdown(bench: Bench, courses: Sequence[Sequence[Course]], plots: Sequence[str]) -> str:
    """The whole bench with the samples of each row, and the names of its plots."""
    parts = ["# Latency"]
    if bench.rows:
        parts.append(table(*measured_table(bench.rows)))
    if bench.comparisons:
        parts.append(table(*compared_table(bench.comparisons)))
    parts += [f"![{name.partition('.')[0]}]({name})" for name in plots]
    for title, lines in details(bench, courses):
        parts += [f"## {title or 'How it was measured'}", table(("what", "value"), lines)]
    notes = [*problems(bench), *(f"{what}: {why}" for what, why in errors(bench))]
    if notes:
        parts += ["## What to know", "\n".join(f"- {' '.join(line.split())}" for line in notes)]
    parts.append(EXPLAINED)
    return "\n\n".join(parts) + "\n"


EXPLAINED = (
    "Host end to end, in fresh processes. `quiet` is what an inference takes while nothing disturbs it; "
    "after ≤ stands the upper bound of a percentile at 95 %, and - is for too few samples."
)
