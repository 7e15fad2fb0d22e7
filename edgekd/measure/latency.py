"""Latency of graphs that are compared: fresh processes, in each of which the graphs take turns.

The unit of evidence is the process: its memory layout and its neighbors last as long as it does, and so the
samples of one process are not independent. An upper bound of a percentile is therefore the larger of two:
that of order statistics over all samples, as in MLPerf, and Student's bound over the percentiles of the
processes on the log scale, which sees what differs from process to process. A ratio is taken round by round
from blocks that were measured side by side, so that what disturbs both cancels; its interval is Student's
over the processes too. By ranks, five processes carry 95 % only with their maximum for a bound, and fewer
carry nothing; Student's bound holds from two on, and in simulation it keeps its level (tests/test_stats.py).

The figure to compare from one day to the next is the latency while nothing disturbs: the lower decile of each
process, Hodges and Lehmann's center of them, Student's bounds. Where other programs take up to four fifths of
the processor, a tenth of the inferences still runs undisturbed; the median of all then jumps between that and
what an interrupted one takes. How well each of several such figures repeats: benchmarks/latency.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import numpy.typing as npt

from edgekd.devices.device import Device
from edgekd.documents.common import Interval
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.measurement import Latency, Percentile, QuietLatency, Ratio
from edgekd.documents.recipe import Measuring
from edgekd.documents.run_log import Conditions, Facts, GraphLog, RunLog
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DeviceError, MeasurementError
from edgekd.measure.noise import find_warnings
from edgekd.stats import (
    hodges_lehmann,
    log_t_interval,
    min_samples,
    nearest_rank,
    order_statistic_upper,
)

COLD_STARTS = 3
PROCESS_TIMEOUT_S = 900.0
QUIET_SHARE = 0.1
"""Share of the samples of a process that are taken to be undisturbed."""


@dataclass(frozen=True)
class LatencyResult:
    """What was measured, by graph name, and the raw logs that it was made from."""

    latencies: Mapping[str, Latency]
    ratios: tuple[Ratio, ...]
    facts: Facts
    conditions: tuple[Conditions, ...]
    warnings: tuple[str, ...]
    logs: tuple[RunLog, ...]


def measure_latency(
    device: Device,
    graphs: Mapping[str, Path],
    *,
    runtime: RuntimeName,
    inputs: Path,
    measuring: Measuring,
    confidence: float,
    reference: str | None = None,
    batch_size: int = 1,
    session_options: Mapping[str, str] | None = None,
    cold_starts: int = COLD_STARTS,
    timeout_s: float = PROCESS_TIMEOUT_S,
) -> LatencyResult:
    """Measure graphs side by side.

    `inputs` is a .npy, batch first. Every bound holds with the one-sided `confidence`; a percentile that the
    samples cannot carry at 99 % is None. With `reference`, the ratio of each other graph to that one.
    Milliseconds, host end to end. `timeout_s` is for one process; `cold_starts` is for each graph.

    Raises:
        MeasurementError: a job failed, or there are too few samples for a median.
        DeviceError, MissingError: as Device.run.
    """
    assert graphs, "there is something to measure"
    assert reference is None or reference in graphs, "the reference is one of the graphs"
    job = Job(
        mode="latency",
        runtime=runtime,
        graphs=tuple(JobGraph(name=name, path=str(path)) for name, path in graphs.items()),
        inputs=str(inputs),
        batch_size=batch_size,
        threads=measuring.threads,
        session_options=dict(session_options or {}),
        warmup_s=measuring.warmup_s,
        max_warmup_s=max(measuring.warmup_s, measuring.max_warmup_s),
        min_time_s=measuring.min_time_s,
        min_samples=measuring.min_samples,
    )
    warm = tuple(
        checked_log(device.run(each, timeout_s=timeout_s), each) for each in _processes(job, measuring)
    )
    cold = tuple(
        checked_log(device.run(each, timeout_s=timeout_s), each) for each in _cold_starts(job, cold_starts)
    )
    names = [name for name in graphs if name != reference] if reference else []
    return LatencyResult(
        latencies={name: latency_of(name, warm, cold, job, confidence) for name in graphs},
        ratios=tuple(ratio_of(name, str(reference), warm, confidence) for name in names),
        facts=warm[0].facts,
        conditions=tuple(log.conditions for log in warm if log.conditions is not None),
        warnings=find_warnings(warm, threads=measuring.threads),
        logs=warm + cold,
    )


def _processes(job: Job, measuring: Measuring) -> Iterator[Job]:
    """The same job for every process, each with another order of turns."""
    return (job.model_copy(update={"seed": seed}) for seed in range(measuring.processes))


def _cold_starts(job: Job, count: int) -> Iterator[Job]:
    """Cold starts of each graph, apart from the timing and in turns."""
    for _ in range(count):
        for graph in job.graphs:
            yield job.model_copy(update={"mode": "cold", "graphs": (graph,)})


def checked_log(log: RunLog, job: Job) -> RunLog:
    """A log that answers its job; a kit of another version, or a wrong file, would not."""
    wanted = [graph.name for graph in job.graphs]
    found = [graph.name for graph in log.graphs]
    sampled = all(0 < len(graph.latency_ns) == len(graph.block_of_sample) for graph in log.graphs)
    if log.mode != job.mode or found != wanted or (job.mode == "latency" and not sampled):
        raise DeviceError(
            f"the run log is not of this job: {log.mode} of {', '.join(found) or 'nothing'}, "
            f"expected {job.mode} of {', '.join(wanted)}",
            hint="the kit on the device is not the one of this edgekd: deliver it again",
        )
    return log


def graph_log(log: RunLog, name: str) -> GraphLog:
    """What a log says of one graph."""
    return next(graph for graph in log.graphs if graph.name == name)


def latency_of(
    name: str, warm: tuple[RunLog, ...], cold: tuple[RunLog, ...], job: Job, confidence: float
) -> Latency:
    """The latency of one graph over all processes."""
    runs = [graph_log(log, name) for log in warm]
    samples_ms = [np.asarray(run.latency_ns, dtype=np.float64) / 1e6 for run in runs]
    fresh = [log for log in cold if log.graphs[0].name == name]
    starts = [log.process_ns for log in fresh if log.process_ns is not None]
    alone = [log.graphs[0] for log in fresh] or runs
    p50 = percentile(samples_ms, 0.5, confidence)
    if p50 is None:
        count = sum(map(len, samples_ms))
        raise MeasurementError(f"{count} samples cannot carry a median", where=name, hint="raise min_samples")
    return Latency(
        samples=sum(map(len, samples_ms)),
        processes=len(runs),
        batch_size=job.batch_size,
        threads=job.threads,
        confidence=confidence,
        p50=p50,
        p90=percentile(samples_ms, 0.9, confidence),
        p99=percentile(samples_ms, 0.99, confidence),
        process_p50_ms=tuple(nearest_rank(samples, 0.5) for samples in samples_ms),
        quiet=quiet_latency(samples_ms, confidence),
        cold_start_ms=median(starts) / 1e6 if starts else None,
        # From processes that load nothing else: a process's first graph pays for the runtime's own start too.
        load_ms=median(run.load_ns for run in alone) / 1e6,
        first_ms=median(run.first_ns for run in alone) / 1e6,
        build_ms=_longest_build_ms(runs, fresh),
        scopes_p50_ms=_scopes_p50_ms(runs),
    )


def _longest_build_ms(runs: list[GraphLog], fresh: list[RunLog]) -> float | None:
    """The first process builds the engine, the others find it; None where none was built."""
    built = [graph.build_ns for graph in (*runs, *(log.graphs[0] for log in fresh)) if graph.build_ns]
    return max(built) / 1e6 if built else None


def _scopes_p50_ms(runs: list[GraphLog]) -> dict[str, float]:
    """Median of each inner scope, over the samples of all processes."""
    taken: dict[str, list[int]] = {}
    for run in runs:
        for scope, samples_ns in run.scope_ns.items():
            taken.setdefault(scope, []).extend(samples_ns)
    return {scope: max(1, median(samples_ns)) / 1e6 for scope, samples_ns in taken.items() if samples_ns}


def percentile(
    samples_of_process: list[npt.NDArray[np.float64]], q: float, confidence: float
) -> Percentile | None:
    """Nearest-rank percentile of all samples with the wider of two bounds on each side; None for too few.

    One is of order statistics over the pooled samples, the other of Student's t over the processes.
    """
    pooled = np.concatenate(samples_of_process)
    upper, mirrored = (
        order_statistic_upper(pooled, q, confidence),
        order_statistic_upper(-pooled, 1 - q, confidence),
    )
    if upper is None or mirrored is None or len(pooled) < min_samples(q):
        return None
    lower, value = -mirrored, nearest_rank(pooled, q)
    if len(samples_of_process) > 1:
        per_process = [nearest_rank(samples, q) for samples in samples_of_process]
        slow_lower, slow_upper = log_t_interval(per_process, confidence)
        lower, upper = min(lower, slow_lower), max(upper, slow_upper)
    return Percentile(lower_ms=min(value, lower), value_ms=value, upper_ms=max(value, upper))


def quiet_latency(
    samples_of_process: list[npt.NDArray[np.float64]], confidence: float
) -> QuietLatency | None:
    """Latency while nothing disturbs it, from samples in milliseconds.

    None for a single process, and where a clock of coarse steps saw no time pass.
    """
    deciles = [nearest_rank(samples, QUIET_SHARE) for samples in samples_of_process]
    if len(deciles) < 2 or min(deciles) <= 0:
        return None
    value = math.exp(hodges_lehmann(np.log(deciles)))
    lower, upper = log_t_interval(deciles, confidence)
    # The bounds are about the mean of the logs, which a freak process moves more than their center.
    return QuietLatency(lower_ms=min(value, lower), value_ms=value, upper_ms=max(value, upper))


def ratio_of(name: str, reference: str, warm: tuple[RunLog, ...], confidence: float) -> Ratio:
    """Latency of a graph over that of another, from the rounds in which both were measured.

    Raises:
        MeasurementError: fewer than two processes, or no round with both.
    """
    if len(warm) < 2:
        raise MeasurementError("a ratio needs two processes or more", where=name)
    ratios = [_process_ratio(graph_log(log, name), graph_log(log, reference)) for log in warm]
    value = median(ratios)
    lower, upper = log_t_interval(ratios, confidence)
    # The bounds are about the mean of the logs, the value is the median: it lies inside but for a freak.
    interval = Interval(
        lower=min(lower, value), upper=max(upper, value), confidence=round(2 * confidence - 1, 12)
    )
    return Ratio(name=name, reference=reference, value=value, interval=interval)


def _process_ratio(first: GraphLog, second: GraphLog) -> float:
    above, below = block_medians(first), block_medians(second)
    return median(above[turn] / below[turn] for turn in above if turn in below)


def block_medians(run: GraphLog) -> dict[int, float]:
    """Median nanoseconds of each round's block."""
    taken, turns = np.asarray(run.latency_ns, dtype=np.float64), np.asarray(run.block_of_sample)
    return {int(turn): float(np.median(taken[turns == turn])) for turn in np.unique(turns)}
