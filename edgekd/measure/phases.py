"""What a graph does for long: sustained, back to back until a device is warm, and paced, at a fixed rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from edgekd.devices.device import Device
from edgekd.documents.job import Job
from edgekd.documents.measurement import EnergyUse, MemoryUse, Paced, Sustained
from edgekd.documents.run_log import Memory, RunLog
from edgekd.errors import DeviceError, MeasurementError
from edgekd.measure.energy import joules_per_inference
from edgekd.measure.latency import percentile
from edgekd.stats import min_samples, nearest_rank

MINUTE_S = 60.0
SUSTAINED_S = 600.0
"""Shorter than this a passively cooled board may not have become warm."""
SPARE_S = 300.0
"""Time beside the measuring that such a job is given: to load, to build an engine, to warm up."""


def measure_sustained(device: Device, job: Job) -> tuple[Sustained, RunLog]:
    """Run the one graph of a job back to back for `job.duration_s`.

    Raises:
        MeasurementError: it was too slow for two samples in each third; and what Device.run raises.
    """
    log = _run(device, job.model_copy(update={"mode": "sustained"}))
    return sustained_of(log, job), log


def measure_paced(device: Device, job: Job, confidence: float) -> tuple[Paced, RunLog]:
    """Run the one graph of a job `job.rate_hz` times a second for `job.duration_s`.

    Raises:
        MeasurementError: there are too few samples for a median; and what Device.run raises.
    """
    log = _run(device, job.model_copy(update={"mode": "paced"}))
    return paced_of(log, job, confidence), log


def _run(device: Device, job: Job) -> RunLog:
    log = device.run(job, timeout_s=job.duration_s + job.max_warmup_s + SPARE_S)
    if (
        log.mode != job.mode
        or len(log.graphs) != 1
        or len(log.graphs[0].at_ns) != len(log.graphs[0].latency_ns)
    ):
        raise DeviceError(
            f"the run log is not of this job: {log.mode}, expected {job.mode} of {job.graphs[0].name}",
            where=device.name,
        )
    return log


def sustained_of(log: RunLog, job: Job) -> Sustained:
    """First and last minute of a log, or first and last third of one that is shorter than three minutes."""
    (graph,) = log.graphs
    at_s = np.asarray(graph.at_ns, dtype=np.float64) / 1e9
    taken_ms = np.asarray(graph.latency_ns, dtype=np.float64) / 1e6
    window_s = min(MINUTE_S, job.duration_s / 3)
    first, last = taken_ms[at_s < window_s], taken_ms[at_s >= job.duration_s - window_s]
    if len(first) < 2 or len(last) < 2:
        raise MeasurementError(
            f"{len(taken_ms)} inferences in {job.duration_s:g} s tell nothing of its course",
            where=graph.name,
            hint="measure it for longer",
        )
    first_ms, last_ms = float(np.median(first)), float(np.median(last))
    return Sustained(
        duration_s=job.duration_s,
        inferences=graph.inferences,
        samples=len(taken_ms),
        first_ms=first_ms,
        last_ms=last_ms,
        ratio=last_ms / first_ms,
        p99_ms=nearest_rank(taken_ms, 0.99) if len(taken_ms) >= min_samples(0.99) else None,
    )


def paced_of(log: RunLog, job: Job, confidence: float) -> Paced:
    """Percentiles of a log at a fixed rate."""
    (graph,) = log.graphs
    samples: list[npt.NDArray[np.float64]] = [np.asarray(graph.latency_ns, dtype=np.float64) / 1e6]
    p50 = percentile(samples, 0.5, confidence)
    if p50 is None:
        raise MeasurementError(
            f"{len(samples[0])} samples cannot carry a median",
            where=graph.name,
            hint="measure it for longer, or at a higher rate",
        )
    return Paced(
        rate_hz=job.rate_hz,
        duration_s=job.duration_s,
        inferences=graph.inferences,
        late=graph.late,
        p50=p50,
        p90=percentile(samples, 0.9, confidence),
        p99=percentile(samples, 0.99, confidence),
    )


def memory_of(cold: Sequence[RunLog]) -> MemoryUse | None:
    """The most memory of fresh processes that ran one graph; None where no log tells any."""
    found = [log.memory for log in cold if log.memory is not None]
    if not found:
        return None
    return MemoryUse(
        peak_rss_bytes=_most([one.peak_rss_bytes for one in found]),
        graph_rss_bytes=_most([_of_graph(one) for one in found]),
        device_bytes=_most([one.device_bytes for one in found]),
    )


def energy_of(logs: Sequence[RunLog]) -> EnergyUse | None:
    """Energy of an inference from the longest phase, or why there is none; None where nobody looked."""
    found = [(log.energy, joules_per_inference(log), log.mode) for log in logs if log.energy is not None]
    read = [(energy.seconds or 0.0, joules, mode, energy) for energy, joules, mode in found if joules]
    if read:
        _, joules, mode, energy = max(read, key=lambda one: one[0])
        return EnergyUse(joules=joules, mode=mode, source=energy.source)
    return EnergyUse(joules=None, reason=found[0][0].reason) if found else None


def _of_graph(memory: Memory) -> int | None:
    if memory.peak_rss_bytes is None or memory.start_rss_bytes is None:
        return None
    return max(0, memory.peak_rss_bytes - memory.start_rss_bytes)


def _most(values: Sequence[int | None]) -> int | None:
    return max((value for value in values if value is not None), default=None)
