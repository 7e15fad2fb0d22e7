"""The audit of a graph: which weighted operators really run in int8, why the others do not, what it costs."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.causes import Level
from edgekd.documents.common import Interval

Share = Annotated[float, Field(ge=0, le=1)]
Microseconds = Annotated[float, Field(ge=0)]
Quantization = Literal["none", "qdq", "qoperator", "dynamic", "mixed"]
Bucket = Literal["int8", "float", "island", "quantizers", "layout", "other"]


class AuditedOperator(Section):
    """One weighted operator (convolution, matrix product) of the graph."""

    name: str
    """Name of the node in the graph that was given."""
    op_type: str
    """Its ONNX type, such as Conv."""
    int8: bool
    """Whether it runs in int8 after the runtime's optimization."""
    runs_as: str
    """Type of the operator that runs, such as QLinearConv."""
    cause: str | None = None
    """Why it does not run in int8."""
    advice: str | None = None
    """What to change."""
    cause_id: str | None = None
    """Stable id of the cause; `edgekd audit --causes` lists them."""
    time_us: Microseconds | None = None
    """Profiled time of its kernel in one run; null when not profiled."""
    share: Share | None = None
    """Its part of the profiled time of all kernels."""
    float_time_us: Microseconds | None = None
    """Time of its kernel in the same graph without quantizers, profiled side by side."""

    @property
    def runs(self) -> bool:
        """Whether it is work at all: a runtime removes what only makes a constant."""
        return self.cause_id != "removed"


class Finding(Section):
    """Something else that costs, or that is wrong: about operators with or without weights."""

    cause_id: str
    """Stable id of the cause."""
    level: Level
    """error: computes something else; warning: a change of the graph helps; note: it costs."""
    operators: tuple[str, ...]
    """The nodes that it is about, by name."""
    message: str
    """What was found."""
    advice: str | None = None
    """What to change."""
    share: Share | None = None
    """Part of the profiled time that it takes; null when not profiled, or when it takes none of its own."""


class Cost(Section):
    """A part of the profiled time: all parts together are the whole."""

    bucket: Bucket
    """What kind of work it is."""
    cause_id: str | None = None
    """The cause of the operators in it."""
    title: str
    """The part in words."""
    count: int
    """Number of weighted operators in it, or of nodes that run where it has none."""
    share: Share
    """Part of the profiled time."""


class Profile(Section):
    """What the runtime's own profiler said of its kernels."""

    runs: Annotated[int, Field(ge=1)]
    """Number of profiled runs."""
    kernels_us: Microseconds
    """Time of all kernels in one run, median over the runs."""
    float_kernels_us: Microseconds | None = None
    """The same of the graph without quantizers; null where there are none to remove."""


class Speed(Section):
    """Latency over that of the same graph in float, both measured side by side."""

    ratio: Annotated[float, Field(gt=0)]
    """Latency of the graph over that of the same graph without quantizers."""
    interval: Interval
    """Its interval."""
    latency_ms: Annotated[float, Field(gt=0)]
    """Median latency of the graph."""
    float_latency_ms: Annotated[float, Field(gt=0)]
    """Median latency of the graph without quantizers."""
    processes: int
    """Number of fresh processes."""
    samples: int
    """Number of samples of each graph over all processes."""


class Audit(Document):
    """Which weighted operators really run in int8."""

    title: ClassVar[str] = "audit"

    graph: str
    """File name of the graph."""
    graph_sha256: str
    """Digest of the graph."""
    runtime: str
    """The runtime whose optimized graph or parsed network was read."""
    runtime_version: str
    """Its version."""
    machine: str
    """ISA of the machine, since kernels and rewrites differ by it."""
    operators: tuple[AuditedOperator, ...]
    """Every weighted operator, in the graph's order."""
    optimized_operators: dict[str, int]
    """Type to number of the operators that run."""
    loaded: bool = True
    """Whether the runtime took the graph; where it did not, the operators are read from the file alone."""
    problems: tuple[str, ...] = ()
    """Why the runtime did not take the graph, a line each."""
    quantization: Quantization | None = None
    """How the graph is quantized: with Q/DQ pairs, with operators on codes, anew at each run."""
    findings: tuple[Finding, ...] = ()
    """What else costs or is wrong."""
    speed: Speed | None = None
    """Latency against the same graph in float; null when not measured."""
    profile: Profile | None = None
    """What the profiler said; null when not profiled."""
    costs: tuple[Cost, ...] = ()
    """Where the profiled time goes, the largest part first."""
    not_measured: tuple[str, ...] = ()
    """What was not measured, and why, a line each."""
    notes: tuple[str, ...] = ()
    """What a reader should know of this audit, a line each."""

    @property
    def int8_ops(self) -> int:
        """Number of weighted operators that run in int8."""
        return sum(operator.int8 for operator in self.operators)

    @property
    def weighted_ops(self) -> int:
        """Number of weighted operators that run."""
        return sum(operator.runs for operator in self.operators)
