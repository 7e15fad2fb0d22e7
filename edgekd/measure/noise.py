"""What makes a measurement less certain, or invalid: what happened, and what to try."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from edgekd.documents.run_log import Facts, GraphLog, RunLog
from edgekd.measure.environment import Finding, judge
from edgekd.stats import spearman, two_levels
from edgekd.units import format_ms, format_percent

DRIFT_CORRELATION = 0.3
DRIFT_CHANGE = 0.03
LEVELS_EXPLAIN = 0.9
LEVELS_APART = 0.1
WINDOW_SAMPLES = 20
START_EXCESS = 0.1


@dataclass(frozen=True)
class Caps:
    """The highest clocks of the operating point that a device is meant to be at; None: not known."""

    cpu_mhz: float | None = None
    gpu_mhz: float | None = None


NO_CAPS = Caps()


def find_warnings(
    logs: Sequence[RunLog], *, threads: int, caps: Caps = NO_CAPS, also: Sequence[RunLog] = ()
) -> tuple[str, ...]:
    """One line for each thing that happened in at least one process; those of `find_invalid` come too.

    Of `also`, such as a sustained phase, only the state of the device is looked at.
    """
    device = tuple(finding.text for finding in _findings((*logs, *also), caps))
    return (*device, *_about_threads(logs[0].facts, threads), *_about_the_graphs(logs))


def find_invalid(logs: Sequence[RunLog]) -> tuple[str, ...]:
    """What makes the measurement invalid, one line each; nothing for a valid one."""
    return tuple(finding.text for finding in _findings(logs, NO_CAPS) if finding.level == "invalid")


def _findings(logs: Sequence[RunLog], caps: Caps) -> tuple[Finding, ...]:
    moments = [log.conditions for log in logs if log.conditions is not None]
    return judge(
        logs[0].facts,
        moments,
        cpu_cap_mhz=caps.cpu_mhz,
        gpu_cap_mhz=caps.gpu_mhz,
        steady=all(log.mode != "paced" for log in logs),
    )


def _about_threads(facts: Facts, threads: int) -> Iterator[str]:
    if threads > facts.cores:
        yield f"{threads} threads share {facts.cores} processors; try: threads = {facts.cores}"


def _about_the_graphs(logs: Sequence[RunLog]) -> Iterator[str]:
    for index, graph in enumerate(logs[0].graphs):
        runs = [log.graphs[index] for log in logs]
        unsettled = sum(run.warmup_converged is False for run in runs)
        if unsettled:
            yield (
                f"{graph.name}: the warm-up did not settle within 2 % in {unsettled} of {len(runs)} processes"
                "; try: a quieter machine, or a longer measuring.max_warmup_s"
            )
        yield from _slow_start(graph.name, runs)
        yield from _drift(graph.name, runs)
        yield from _levels(graph.name, runs)


def _slow_start(name: str, runs: Sequence[GraphLog]) -> Iterator[str]:
    """A first window that is slower than the rest in most processes: the warm-up was too short."""
    excess = median(_first_window(run) for run in runs)
    if excess > START_EXCESS:
        yield (
            f"{name}: the first {WINDOW_SAMPLES} inferences after the warm-up took {100 * excess:.0f} % "
            "longer than the next; try: a longer measuring.warmup_s"
        )


def _first_window(run: GraphLog) -> float:
    """The first window over the three after it: a drift through the whole process is no slow start."""
    after = run.latency_ns[WINDOW_SAMPLES : 4 * WINDOW_SAMPLES]
    if len(after) < WINDOW_SAMPLES:
        return 0.0
    return float(np.median(run.latency_ns[:WINDOW_SAMPLES]) / max(1.0, float(np.median(after)))) - 1


def _drift(name: str, runs: Sequence[GraphLog]) -> Iterator[str]:
    """Latency that rises or falls within the processes, by rank correlation with time and by size."""
    correlation = median(spearman(run.latency_ns, range(len(run.latency_ns))) for run in runs)
    change = median(_change(run) for run in runs)
    if abs(correlation) > DRIFT_CORRELATION and abs(change) > DRIFT_CHANGE:
        advice = "cool the device, or lock its clocks" if change > 0 else "a longer measuring.warmup_s"
        yield (
            f"{name}: latency drifted by {100 * change:+.1f} % from the first to the last quarter "
            f"of a process (rank correlation {correlation:+.2f}); try: {advice}"
        )


def _change(run: GraphLog) -> float:
    quarter = max(1, len(run.latency_ns) // 4)
    return float(np.median(run.latency_ns[-quarter:]) / np.median(run.latency_ns[:quarter])) - 1


def _levels(name: str, runs: Sequence[GraphLog]) -> Iterator[str]:
    """Samples that lie on two distinct levels, each of them often; rare slow samples are no level."""
    taken = np.concatenate([np.asarray(run.latency_ns, dtype=np.float64) for run in runs])
    kept = taken[taken <= np.quantile(taken, 0.95)]
    low, high, explained = two_levels(kept)
    share = float(np.mean(taken > (low + high) / 2))
    if explained > LEVELS_EXPLAIN and high > (1 + LEVELS_APART) * low and 0.1 <= share <= 0.9:
        yield (
            f"{name}: latency jumps between two levels, {format_ms(low / 1e6)} and {format_ms(high / 1e6)} "
            f"({format_percent(share, 0)} of the samples); "
            "try: lock the clocks, or pin the process to one kind of core"
        )
