"""Whether one graph is slower than another: both in every process, taking turns, until the answer is clear.

Inside a process the graphs take turns in short blocks, in random order, so that the same things disturb both.
The ratio of a process is that of their lower deciles over the rounds that both had: inferences that nothing
interrupted, on a machine too where most are. On recorded logs it differed less from process to process than
medians of the ratios of neighboring blocks, by whichever quantile, once other programs took more than half of
the processor. Memory layout and neighbors last as long as a process does, so that the processes are the
evidence: many, and short. Which graph is loaded first, and so lies better in memory, alternates. When a
comparison ends: looks.py.

How often a slowdown of 5 % is found, and none is taken for one, quiet and under load: benchmarks/latency.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgekd.devices.device import Device
from edgekd.documents.common import Interval
from edgekd.documents.job import Job, JobGraph
from edgekd.documents.measurement import Comparison
from edgekd.documents.run_log import Conditions, Facts, GraphLog, RunLog
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import MeasurementError
from edgekd.measure.latency import PROCESS_TIMEOUT_S, QUIET_SHARE, checked_log, graph_log
from edgekd.measure.looks import LOOKS, MOST_CONFIDENCE, Finding, look_until_decided
from edgekd.measure.noise import find_warnings
from edgekd.stats import nearest_rank

MARGIN = 0.02
MOST_S = 50.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class ComparedGraphs:
    """The comparison, and the raw logs that it was made from."""

    comparison: Comparison
    facts: Facts
    conditions: tuple[Conditions, ...]
    warnings: tuple[str, ...]
    logs: tuple[RunLog, ...]


@dataclass
class _Bout:
    """The processes so far, and how the next one is run."""

    device: Device
    job: Job
    reference: str
    candidate: str
    timeout_s: float
    most_s: float
    clock: Callable[[], float]
    on_progress: Progress | None
    logs: list[RunLog] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    blocks: int = 0

    def __post_init__(self) -> None:
        self._began = self.clock()

    @property
    def seconds(self) -> float:
        return self.clock() - self._began

    def goes_on(self, done: int) -> bool:
        """Whether one more process like those so far would end in time."""
        return self.seconds * (done + 1) / done <= self.most_s

    def measure(self) -> float:
        """The ratio of a fresh process, the graphs loaded in the other order than before."""
        done = len(self.logs)
        graphs = self.job.graphs if done % 2 == 0 else self.job.graphs[::-1]
        job = self.job.model_copy(update={"graphs": graphs, "seed": done})
        log = checked_log(self.device.run(job, timeout_s=self.timeout_s), job)
        candidate, reference = graph_log(log, self.candidate), graph_log(log, self.reference)
        self.logs.append(log)
        self.blocks += len({*candidate.block_of_sample} & {*reference.block_of_sample})
        self.ratios.append(process_ratio(candidate, reference))
        if self.on_progress is not None:
            self.on_progress(done + 1, LOOKS[-1])
        return self.ratios[-1]


def compare_graphs(
    device: Device,
    reference: JobGraph,
    candidate: JobGraph,
    *,
    runtime: RuntimeName,
    inputs: Path,
    threads: int = 1,
    batch_size: int = 1,
    session_options: Mapping[str, str] | None = None,
    confidence: float = MOST_CONFIDENCE,
    margin: float = MARGIN,
    most_s: float = MOST_S,
    timeout_s: float = PROCESS_TIMEOUT_S,
    on_progress: Progress | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> ComparedGraphs:
    """Compare the latency of two graphs that have different names, host end to end.

    `inputs` is a .npy, batch first, that both graphs take. `confidence` is of each bound, one-sided. A ratio
    from 1 / (1 + margin) to 1 + margin counts as no difference. No process is begun that would end after
    `most_s` seconds, but for the first eight: two graphs of more than 100 ms take longer. `timeout_s` is for
    one process. `on_progress(done, most)` is called after each process.

    Raises:
        MeasurementError: a job failed, or a graph is too fast for the device's clock.
        DeviceError, MissingError: as Device.run.
        ValueError: the confidence is below 0.5 or above 0.99.
    """
    assert reference.name != candidate.name, "the graphs are told apart by their names"
    job = Job(
        mode="latency",
        runtime=runtime,
        graphs=(reference, candidate),
        inputs=str(inputs),
        batch_size=batch_size,
        threads=threads,
        session_options=dict(session_options or {}),
        warmup_s=0.1,
        max_warmup_s=0.3,
        min_time_s=0.5,
        min_samples=20,
        block_samples=5,
        scope_samples=0,
    )
    bout = _Bout(device, job, reference.name, candidate.name, timeout_s, most_s, clock, on_progress)
    found = look_until_decided(bout.measure, confidence=confidence, margin=margin, goes_on=bout.goes_on)
    logs = tuple(bout.logs)
    return ComparedGraphs(
        comparison=_comparison(bout, found, confidence, margin),
        facts=logs[0].facts,
        conditions=tuple(log.conditions for log in logs if log.conditions is not None),
        warnings=find_warnings([_in_order(log, job) for log in logs], threads=threads),
        logs=logs,
    )


def _in_order(log: RunLog, job: Job) -> RunLog:
    """The log with its graphs in the order of the job, whichever was loaded first."""
    return log.model_copy(update={"graphs": tuple(graph_log(log, graph.name) for graph in job.graphs)})


def _comparison(bout: _Bout, found: Finding, confidence: float, margin: float) -> Comparison:
    two_sided = round(2 * confidence - 1, 12)
    return Comparison(
        reference=bout.reference,
        candidate=bout.candidate,
        ratio=found.ratio,
        interval=Interval(lower=found.lower, upper=found.upper, confidence=two_sided),
        margin=margin,
        outcome=found.outcome,
        processes=len(bout.logs),
        blocks=bout.blocks,
        process_ratios=tuple(bout.ratios),
        seconds=bout.seconds,
    )


def process_ratio(candidate: GraphLog, reference: GraphLog) -> float:
    """Latency of one graph over that of another in one process, while nothing disturbs them.

    Raises:
        MeasurementError: a clock of coarse steps saw no time pass.
    """
    above, below = _quiet_ns(candidate, reference), _quiet_ns(reference, candidate)
    for graph, taken in ((candidate, above), (reference, below)):
        if taken <= 0:
            raise MeasurementError(
                "takes less time than the device's clock can tell", where=graph.name, hint="a larger batch"
            )
    return above / below


def _quiet_ns(graph: GraphLog, other: GraphLog) -> float:
    """Lower decile of the samples of those rounds that the other graph had too."""
    shared = np.isin(graph.block_of_sample, other.block_of_sample)
    return nearest_rank(np.asarray(graph.latency_ns)[shared], QUIET_SHARE)
