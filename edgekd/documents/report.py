"""The report of a run: the verdict, the rows that it rests on, and where everything came from."""

from __future__ import annotations

from typing import ClassVar

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Interval, Versions
from edgekd.documents.engine import EngineRecord
from edgekd.documents.measurement import Measurement
from edgekd.documents.recipe import Recipe
from edgekd.documents.verdict import Check, Outcome


class RowLatency(Section):
    """Latency of a row in milliseconds; a percentile that n cannot carry is null."""

    p50: float
    """Median."""
    p90: float | None
    """90th percentile."""
    p99: float | None
    """99th percentile."""
    p50_upper: float
    """Upper confidence bound of the median."""
    p90_upper: float | None
    """Upper confidence bound of the 90th percentile."""
    samples: int
    """Number of samples."""
    processes: int
    """Number of fresh processes."""


class Row(Section):
    """One network on one target."""

    name: str
    """What it is, such as `teacher fp32`, `student fp32` or `student QAD int8`."""
    target: str
    """The target, `PROFILE/RUNTIME`."""
    top1: float | None
    """Share of correct answers on the test set, on the runtime."""
    top1_interval: Interval | None
    """Its interval."""
    latency_ms: RowLatency | None
    """Latency; null when not measured."""
    size_bytes: int
    """Size of the graph's file."""
    int8_ops: int | None
    """Weighted operators that run in int8; null when not audited."""
    weighted_ops: int | None
    """Weighted operators."""


class StageRecord(Section):
    """A stage of the run."""

    name: str
    """The stage."""
    key: str
    """Digest of everything that its result depends on."""
    seconds: float
    """Time that it took when it was made."""


class Report(Document):
    """The verdict and everything that it rests on."""

    title: ClassVar[str] = "report"

    name: str
    """The recipe's name."""
    verdict: Outcome
    """pass, fail or inconclusive."""
    checks: tuple[Check, ...]
    """The questions and their answers."""
    rows: tuple[Row, ...]
    """The networks that were measured."""
    measurements: tuple[Measurement, ...]
    """The figures behind the rows."""
    engines: tuple[EngineRecord, ...] = ()
    """What became of each TensorRT graph."""
    notes: tuple[str, ...] = ()
    """What a reader of the rows should know, a line each."""
    not_done: tuple[str, ...] = ()
    """What was not built, run or measured, and why."""
    recipe: Recipe
    """The resolved recipe."""
    stages: tuple[StageRecord, ...]
    """How the run came about."""
    versions: Versions
    """What made it."""
