"""Measurements: judged on the host from the kit's logs, each with its n, bound, device and versions."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.audit import Audit
from edgekd.documents.base import Document, Section
from edgekd.documents.common import Interval, Sha256
from edgekd.documents.parity import Parity
from edgekd.documents.run_log import Conditions, Facts

Milliseconds = Annotated[float, Field(gt=0)]


class Percentile(Section):
    """A percentile of latency with its confidence bounds, each one-sided."""

    lower_ms: Milliseconds
    """Lower confidence bound."""
    value_ms: Milliseconds
    """Nearest-rank percentile."""
    upper_ms: Milliseconds
    """Upper confidence bound."""


class Latency(Section):
    """Latency of one graph on one device, host end to end, batch 1 unless said."""

    samples: Annotated[int, Field(ge=1)]
    """Number of samples over all processes."""
    processes: Annotated[int, Field(ge=1)]
    """Number of fresh processes."""
    batch_size: int
    """Examples in one inference."""
    threads: int
    """Threads of the runtime."""
    confidence: float
    """One-sided confidence of the upper bounds."""
    p50: Percentile
    """Median."""
    p90: Percentile | None
    """90th percentile; null below 64 samples, which cannot carry it."""
    p99: Percentile | None
    """99th percentile; null below 662 samples, which cannot carry it."""
    process_p50_ms: tuple[Milliseconds, ...]
    """Median of each process."""
    cold_start_ms: Milliseconds | None = None
    """Start of a fresh process to its first output, median."""
    load_ms: Milliseconds
    """Load of the graph into the runtime in a fresh process, median."""
    first_ms: Milliseconds
    """First inference after that load, median."""


class Ratio(Section):
    """Latency of one graph over that of another, from blocks measured side by side."""

    name: str
    """The graph in the numerator."""
    reference: str
    """The graph in the denominator."""
    value: Annotated[float, Field(gt=0)]
    """Median over processes of the median of block ratios."""
    interval: Interval
    """Interval over processes."""


class Accuracy(Section):
    """Top-1 on the test set, of the artefact on its runtime."""

    top1: Annotated[float, Field(ge=0, le=1)]
    """Share of correct answers."""
    correct: Annotated[int, Field(ge=0)]
    """Number of correct answers."""
    count: Annotated[int, Field(ge=1)]
    """Number of examples."""
    interval: Interval
    """Wilson interval."""


class Subject(Section):
    """One graph, measured."""

    name: str
    """Row of the report, such as `student QAD int8`."""
    graph_sha256: Sha256
    """Digest of the graph."""
    size_bytes: Annotated[int, Field(gt=0)]
    """Size of the graph's file."""
    accuracy: Accuracy | None = None
    """Top-1 on the runtime; null without labels."""
    predictions_sha256: Sha256 | None = None
    """Digest of the predicted classes, example by example."""
    latency: Latency | None = None
    """Latency; null when not measured."""
    parity: Parity | None = None
    """Agreement with the fake-quantized (or fp32) network that it was made from."""
    audit: Audit | None = None
    """Which weighted operators run in int8."""


class Measurement(Document):
    """Everything that was measured for one target."""

    title: ClassVar[str] = "measurement"

    profile: str
    """The device's profile."""
    runtime: str
    """The runtime."""
    facts: Facts
    """What the device is."""
    conditions: tuple[Conditions, ...] = ()
    """The state of the device around each process."""
    subjects: tuple[Subject, ...]
    """The graphs."""
    ratios: tuple[Ratio, ...] = ()
    """Latencies compared side by side."""
    mismatches: tuple[str, ...] = ()
    """How the device differs from its profile, a line each."""
    warnings: tuple[str, ...] = ()
    """What makes the figures less certain, a line each."""
