"""What else was measured of a setting, as names and values; what is the same of all settings is said once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgekd.documents.bench import Row, SideBySide
from edgekd.documents.measurement import Latency, Measurement, Percentile, Subject
from edgekd.documents.run_log import Facts
from edgekd.pipeline.bench.course import Course
from edgekd.pipeline.bench.sparkline import sparkline
from edgekd.units import format_bytes, format_ms, format_percent

Details = tuple[tuple[str, str], ...]


def latency_of(measurement: Measurement) -> Latency:
    """The latency of the one graph of a bench's measurement."""
    latency = measurement.subjects[0].latency
    assert latency is not None, "a bench measures latency"
    return latency


def bounded(percentile: Percentile | None) -> str:
    """`1.53 ≤ 1.60 ms`: the value and its upper bound; `-` for too few samples."""
    if percentile is None:
        return "-"
    value, bound = format_ms(percentile.value_ms), format_ms(percentile.upper_ms)
    number, unit = value.split()
    return f"{number if bound.endswith(f' {unit}') else value} ≤ {bound}"


def split(details: Sequence[Details]) -> tuple[Details, tuple[Details, ...]]:
    """What is the same in all of them, and what is left of each."""
    if not details:
        return (), ()
    same = tuple(pair for pair in details[0] if all(pair in one for one in details))
    return same, tuple(tuple(pair for pair in one if pair not in same) for one in details)


def details_of(row: Row, courses: Sequence[Course]) -> Details:
    """What else was measured of a setting; nothing where there is no measurement."""
    if row.measurement is None:
        return ()
    return (*_setting(row), *_of_measurement(row.measurement), *_over_time(courses))


def details_of_pair(pair: SideBySide) -> Details:
    """What else is known of a comparison; nothing where there is none."""
    if pair.comparison is None or pair.facts is None:
        return ()
    found = pair.comparison
    return (
        *_setting(pair),
        *_machine(pair.facts),
        ("evidence", f"{found.processes} processes, {found.blocks} pairs of blocks, {found.seconds:.0f} s"),
        ("no difference", f"ratios from {1 / (1 + found.margin):.3f} to {1 + found.margin:.3f}"),
    )


def _setting(one: Row | SideBySide) -> Iterator[tuple[str, str]]:
    setting = one.setting
    yield "device", setting.device
    yield "runtime", setting.runtime
    yield "threads", str(setting.threads)
    yield "batch", str(setting.batch_size)


def _machine(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "machine", facts.board or facts.cpu or facts.machine
    yield "versions", ", ".join(f"{name} {version}" for name, version in facts.versions.items())


def _of_measurement(measurement: Measurement) -> Iterator[tuple[str, str]]:
    subject, latency = measurement.subjects[0], latency_of(measurement)
    yield from _machine(measurement.facts)
    yield "samples", f"{latency.samples} in {latency.processes} fresh processes"
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
    yield from _memory(subject)
    yield from _energy(subject)
    if subject.accuracy is not None:
        yield "top-1", f"{format_percent(subject.accuracy.top1)} of {subject.accuracy.count} examples"
    if subject.audit is not None:
        yield "int8", f"{subject.audit.int8_ops} of {subject.audit.weighted_ops} weighted operators"


def _long_phases(subject: Subject) -> Iterator[tuple[str, str]]:
    if (sustained := subject.sustained) is not None:
        yield (
            f"sustained {sustained.duration_s:g} s",
            f"{format_ms(sustained.first_ms)} at first, {format_ms(sustained.last_ms)} at last "
            f"({sustained.ratio:.3f}), {sustained.inferences} inferences",
        )
    if (paced := subject.paced) is not None:
        missed = max(0, int(paced.duration_s * paced.rate_hz) - paced.inferences)
        yield (
            f"at {paced.rate_hz:g} Hz, {paced.duration_s:g} s",
            f"p50 {bounded(paced.p50)}, p99 {bounded(paced.p99)}, {paced.late} of {paced.inferences} late"
            f"{f', {missed} never begun' if missed else ''}",
        )


def _memory(subject: Subject) -> Iterator[tuple[str, str]]:
    if (memory := subject.memory) is None or memory.peak_rss_bytes is None:
        return
    graph = "" if memory.graph_rss_bytes is None else f", {format_bytes(memory.graph_rss_bytes)} by the graph"
    device = "" if memory.device_bytes is None else f"; accelerator {format_bytes(memory.device_bytes)}"
    yield "memory", f"{format_bytes(memory.peak_rss_bytes)}{graph}{device}"


def _energy(subject: Subject) -> Iterator[tuple[str, str]]:
    if (energy := subject.energy) is None:
        return
    if energy.joules is None:
        yield "energy", f"not measured: {energy.reason}"
    else:
        yield "energy", f"{1000 * energy.joules:.3g} mJ an inference ({energy.source}, {energy.mode})"


def _over_time(courses: Sequence[Course]) -> Iterator[tuple[str, str]]:
    for course in courses:
        if line := sparkline(course.taken_ms):
            yield f"over time{f', {course.phase}' if course.phase else ''}", line
