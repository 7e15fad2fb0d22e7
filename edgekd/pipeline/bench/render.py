"""What a bench found as cells of a table, lines of text, and Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from edgekd.documents.bench import Bench, Row, SideBySide
from edgekd.documents.measurement import Latency, Measurement, Percentile, Subject
from edgekd.pipeline.bench.course import Course
from edgekd.pipeline.render import table
from edgekd.units import format_bytes, format_ms, format_percent

HEADINGS = ("graph", "device", "runtime", "threads", "batch", "quiet", "p50", "p90", "p99", "n", "over time")
COMPARED = ("graph", "to", "device", "runtime", "ratio", "interval", "found", "processes", "in")
DISTRIBUTION, COURSE = "distribution.svg", "course.svg"
"""Names of the plots."""
_BARS = "▁▂▃▄▅▆▇█"
SPARK_CELLS = 16


def cells(row: Row, courses: Sequence[Course]) -> tuple[str, ...]:
    """One setting with its samples, as the cells of a row of HEADINGS."""
    setting = row.setting
    what = (setting.graph, setting.device, setting.runtime, str(setting.threads), str(setting.batch_size))
    if row.measurement is None:
        return (*what, *("-",) * (len(HEADINGS) - len(what)))
    latency = latency_of(row.measurement)
    return (
        *what,
        "-" if latency.quiet is None else format_ms(latency.quiet.value_ms),
        bounded(latency.p50),
        bounded(latency.p90),
        bounded(latency.p99),
        f"{latency.samples} in {latency.processes}",
        " ".join(sparkline(course.taken_ms) for course in courses),
    )


def bounded(percentile: Percentile | None) -> str:
    """`1.53 ms (≤ 1.60)`: the value and its upper bound; `-` for too few samples."""
    if percentile is None:
        return "-"
    return f"{format_ms(percentile.value_ms)} (≤ {format_ms(percentile.upper_ms)})"


def latency_of(measurement: Measurement) -> Latency:
    """The latency of the one graph of a bench's measurement."""
    latency = measurement.subjects[0].latency
    assert latency is not None, "a bench measures latency"
    return latency


def compared(pair: SideBySide) -> tuple[str, ...]:
    """Two graphs, as the cells of a row of COMPARED."""
    setting, found = pair.setting, pair.comparison
    what = (setting.graph, pair.reference, setting.device, setting.runtime)
    if found is None:
        return (*what, *("-",) * (len(COMPARED) - len(what)))
    interval = found.interval
    return (
        *what,
        f"{found.ratio:.3f}",
        f"{interval.lower:.3f} to {interval.upper:.3f} ({format_percent(interval.confidence, 0)})",
        found.outcome,
        str(found.processes),
        f"{found.seconds:.0f} s",
    )


def sparkline(values: Sequence[float] | npt.NDArray[np.float64], cells: int = SPARK_CELLS) -> str:
    """Medians of equal parts of a series as bars, from its least part to its largest."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) < cells:
        return ""
    parts = [float(np.median(part)) for part in np.array_split(found, cells)]
    least, most = min(parts), max(parts)
    # A tenth of the level is the least height that is drawn in full: noise shall not look like a mountain.
    height = max(most - least, 0.1 * least)
    return "".join(_BARS[min(len(_BARS) - 1, int((part - least) / height * len(_BARS)))] for part in parts)


def details(row: Row) -> Iterator[tuple[str, str]]:
    """What else was measured of a setting: names and values."""
    measurement = row.measurement
    if measurement is None:
        return
    subject, latency = measurement.subjects[0], latency_of(measurement)
    yield "machine", measurement.facts.cpu or measurement.facts.machine
    yield "versions", ", ".join(f"{name} {version}" for name, version in measurement.facts.versions.items())
    if latency.build_ms is not None:
        yield "build", format_ms(latency.build_ms)
    yield "load", format_ms(latency.load_ms)
    yield "first inference", format_ms(latency.first_ms)
    if latency.cold_start_ms is not None:
        yield "cold start", f"{format_ms(latency.cold_start_ms)}, from the start of the process"
    for scope, p50_ms in latency.scopes_p50_ms.items():
        yield f"{scope} p50", format_ms(p50_ms)
    yield from _long_phases(subject)
    yield "size", format_bytes(subject.size_bytes)
    yield from _resources(subject)
    if subject.accuracy is not None:
        yield "top-1", f"{format_percent(subject.accuracy.top1)} of {subject.accuracy.count} examples"
    if subject.audit is not None:
        yield "int8", f"{subject.audit.int8_ops} of {subject.audit.weighted_ops} weighted operators"


def _long_phases(subject: Subject) -> Iterator[tuple[str, str]]:
    if (sustained := subject.sustained) is not None:
        yield (
            "sustained",
            f"{format_ms(sustained.first_ms)} at first, {format_ms(sustained.last_ms)} at last "
            f"({sustained.ratio:.3f}) in {sustained.duration_s:g} s, {sustained.inferences} inferences",
        )
    if (paced := subject.paced) is not None:
        late = f", {paced.late} late" if paced.late else ""
        yield f"at {paced.rate_hz:g} Hz", f"p50 {bounded(paced.p50)}, p99 {bounded(paced.p99)}{late}"


def _resources(subject: Subject) -> Iterator[tuple[str, str]]:
    if (memory := subject.memory) is not None and memory.peak_rss_bytes is not None:
        graph = (
            "" if memory.graph_rss_bytes is None else f", {format_bytes(memory.graph_rss_bytes)} by the graph"
        )
        device = "" if memory.device_bytes is None else f"; accelerator {format_bytes(memory.device_bytes)}"
        yield "memory", f"{format_bytes(memory.peak_rss_bytes)}{graph}{device}"
    if (energy := subject.energy) is not None:
        if energy.joules is None:
            yield "energy", f"not measured: {energy.reason}"
        else:
            yield "energy", f"{1000 * energy.joules:.3g} mJ an inference ({energy.source}, {energy.mode})"


def problems(bench: Bench) -> Iterator[str]:
    """Each line that a reader must not miss: why figures do not count, then what makes them less certain."""
    for row in bench.rows:
        if row.measurement is not None:
            name = f"{row.setting.graph} on {row.setting.device}"
            yield from (f"{name}: invalid: {line}" for line in row.measurement.invalid)
            yield from (
                f"{name}: not {row.measurement.profile}: {line}" for line in row.measurement.mismatches
            )
    lines = [line for row in bench.rows if row.measurement for line in row.measurement.warnings]
    lines += [line for pair in bench.comparisons for line in pair.warnings]
    # What differs in its numbers alone is said once.
    yield from {re.sub(r"[0-9.]+", "#", line): line for line in reversed(lines)}.values()


def errors(bench: Bench) -> Iterator[tuple[str, str]]:
    """What could not be measured: the setting and why."""
    found: tuple[Row | SideBySide, ...] = (*bench.rows, *bench.comparisons)
    for one in found:
        if one.error is not None:
            yield f"{one.setting.graph} on {one.setting.device} with {one.setting.runtime}", one.error


def to_markdown(bench: Bench, courses: Sequence[Sequence[Course]], plots: Sequence[str]) -> str:
    """The whole bench with the samples of each row, and the names of its plots."""
    parts = ["# Latency"]
    if bench.rows:
        rows = [cells(row, course) for row, course in zip(bench.rows, courses, strict=True)]
        parts.append(table(HEADINGS, rows))
    if bench.comparisons:
        parts.append(table(COMPARED, [compared(pair) for pair in bench.comparisons]))
    parts += [f"![{name.partition('.')[0]}]({name})" for name in plots]
    for row in bench.rows:
        if found := list(details(row)):
            title = f"## {row.setting.graph}, {row.setting.runtime} on {row.setting.device}"
            how = f"{row.setting.threads} thread(s), batch {row.setting.batch_size}"
            parts += [f"{title}, {how}", table(("what", "value"), found)]
    lines = [*problems(bench), *(f"{what}: {why}" for what, why in errors(bench))]
    if lines:
        parts += ["## What to know", "\n".join(f"- {line}" for line in lines)]
    parts.append(
        "Host end to end, in fresh processes. `quiet` is what an inference takes while nothing disturbs it; "
        "a percentile stands with its upper bound."
    )
    return "\n\n".join(parts) + "\n"
