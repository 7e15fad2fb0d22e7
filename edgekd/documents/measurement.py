"""Measurements: judged on the host from the kit's logs, each with its n, bound, device and versions."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

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


class QuietLatency(Section):
    """What an inference takes while nothing disturbs it, with its confidence bounds, each one-sided.

    The lower decile of each process, and the center of those: of all figures here the one that comes out the
    same when it is measured again, on a busy machine too. It says nothing of what a user waits for on such a
    machine: the percentiles do.
    """

    lower_ms: Milliseconds
    """Lower confidence bound, over the processes."""
    value_ms: Milliseconds
    """Hodges and Lehmann's center of the lower deciles of the processes, on the log scale."""
    upper_ms: Milliseconds
    """Upper confidence bound, over the processes."""


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
    quiet: QuietLatency | None = None
    """Latency while nothing disturbs it, the figure to compare; null for one process or a coarse clock."""
    cold_start_ms: Milliseconds | None = None
    """Start of a fresh process to its first output, median."""
    load_ms: Milliseconds
    """Load of the graph into the runtime in a fresh process, median."""
    first_ms: Milliseconds
    """First inference after that load, median."""
    build_ms: Milliseconds | None = None
    """Build of the engine from the graph, the longest of all processes; null where none was built."""
    scopes_p50_ms: dict[str, Milliseconds] = {}
    """Medians of scopes inside an inference: `device`, copies and inference; `compute`, without copies."""


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


class Sustained(Section):
    """One graph back to back in one process, for so long that the device gets warm."""

    duration_s: float
    """Time after the warm-up."""
    inferences: int
    """Inferences in that time."""
    samples: int
    """Inferences of which the time was kept."""
    first_ms: Milliseconds
    """Median of the first minute, or of the first third where the whole is shorter than three minutes."""
    last_ms: Milliseconds
    """Median of the last minute, or third."""
    ratio: Annotated[float, Field(gt=0)]
    """Last over first: above 1 the device slows down."""
    p99_ms: Milliseconds | None
    """99th percentile of the whole; null below 662 samples."""


class Paced(Section):
    """One graph at a fixed rate in one process, from when each frame is due to its answer."""

    rate_hz: float
    """Inferences asked for in a second."""
    duration_s: float
    """Time after the warm-up."""
    inferences: int
    """Inferences that were made."""
    late: int
    """Those that began only when the next one was due."""
    p50: Percentile
    """Median."""
    p90: Percentile | None
    """90th percentile; null for too few samples."""
    p99: Percentile | None
    """99th percentile; null for too few samples."""


class MemoryUse(Section):
    """Memory of a fresh process that runs the graph, the most of several processes."""

    peak_rss_bytes: int | None
    """Resident memory, interpreter and runtime included; null where it cannot be read."""
    graph_rss_bytes: int | None
    """What loading and running the graph added to it."""
    device_bytes: int | None
    """Memory of the accelerator; null where there is none or it cannot be read."""


class EnergyUse(Section):
    """Energy of an inference, idle not subtracted."""

    joules: Annotated[float, Field(gt=0)] | None
    """Energy of one inference; null where it cannot be read."""
    mode: str | None = None
    """What it was read in: latency, sustained or paced."""
    source: str | None = None
    """The counter or sensor."""
    reason: str | None = None
    """Why there is no figure."""


class Comparison(Section):
    """Whether one graph is slower than another, from processes in each of which they took turns."""

    reference: str
    """The graph in the denominator."""
    candidate: str
    """The graph in the numerator."""
    ratio: Annotated[float, Field(gt=0)]
    """Latency of the candidate over that of the reference: Hodges and Lehmann's center over the processes."""
    interval: Interval
    """Interval of the ratio; it holds with its confidence at whichever look the comparison ended."""
    margin: Annotated[float, Field(gt=0)]
    """The change that counts as none, such as 0.02 for a ratio up to 1.02 and down to 1 / 1.02."""
    outcome: Literal["slower", "faster", "no difference", "undecided"]
    """Where the interval lies: beyond the margin on either side, inside of it, or across one of its ends."""
    processes: Annotated[int, Field(ge=1)]
    """Number of fresh processes."""
    blocks: Annotated[int, Field(ge=1)]
    """Number of rounds that both graphs had, over all processes."""
    process_ratios: tuple[Annotated[float, Field(gt=0)], ...]
    """Ratio of each process: that of the lower deciles of the rounds that both graphs had."""
    seconds: Annotated[float, Field(ge=0)]
    """How long the comparison took."""


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
    sustained: Sustained | None = None
    """The same for long; null when not asked for."""
    paced: Paced | None = None
    """The same at a fixed rate; null when not asked for."""
    memory: MemoryUse | None = None
    """Memory; null when not measured."""
    energy: EnergyUse | None = None
    """Energy; null when not measured."""
    parity: Parity | None = None
    """Agreement with the fake-quantized (or fp32) network that it was made from."""
    audit: Audit | None = None
    """Which weighted operators run in int8."""


class Measurement(Document):
    """Everything that was measured for one target."""

    title: ClassVar[str] = "measurement"

    device: str = "local"
    """Where the device is."""
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
    invalid: tuple[str, ...] = ()
    """Why the figures do not count: the device was throttled or taken away, a line each."""
    warnings: tuple[str, ...] = ()
    """What makes the figures less certain, a line each."""
