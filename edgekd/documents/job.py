"""The job that the kit is given, and what one graph of it is."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.runtime import RuntimeName


class JobGraph(Section):
    """A graph that the kit runs."""

    name: str
    """What the log calls it."""
    path: str
    """Its file."""


class Job(Document):
    """What the kit shall do, in one process.

    latency: warm each graph up, then let the graphs take turns in blocks, in random order.
    cold: import, load and first inference of one graph. outputs: the graph's logits for `inputs`, as .npy.
    sustained: one graph back to back for `duration_s`. paced: one graph `rate_hz` times a second for
    `duration_s`, idle in between. facts: what the device is.
    """

    title: ClassVar[str] = "job"

    mode: Literal["latency", "cold", "outputs", "sustained", "paced", "facts"]
    """What to do."""
    runtime: RuntimeName
    """The runtime to run on."""
    graphs: tuple[JobGraph, ...] = ()
    """The graphs to run; exactly one for all modes but latency."""
    inputs: str | None = None
    """A .npy of inputs, batch first."""
    outputs: str | None = None
    """Where the mode `outputs` writes its .npy."""
    batch_size: Annotated[int, Field(ge=1)] = 1
    """Examples in one inference."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of the runtime."""
    session_options: dict[str, str] = {}
    """Configuration entries of the runtime's session."""
    cache: str | None = None
    """Folder in which engines that are built from graphs are kept for the next process; null: nowhere."""
    warmup_s: Annotated[float, Field(ge=0)] = 0.3
    """Least warm-up of each graph."""
    max_warmup_s: Annotated[float, Field(gt=0)] = 10.0
    """Most warm-up of each graph."""
    min_time_s: Annotated[float, Field(ge=0)] = 0.5
    """Least measured time of each graph."""
    min_samples: Annotated[int, Field(ge=1)] = 200
    """Least samples of each graph."""
    max_samples: Annotated[int, Field(ge=1)] = 1_000_000
    """Samples of each graph at which the mode latency ends, however little time they took."""
    block_samples: Annotated[int, Field(ge=1)] = 20
    """Samples of one graph before the next one's turn."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of the order of turns."""
    duration_s: Annotated[float, Field(gt=0)] = 600.0
    """Time of the modes sustained and paced, after the warm-up."""
    rate_hz: Annotated[float, Field(gt=0)] = 30.0
    """Inferences in a second of the mode paced."""
    max_kept: Annotated[int, Field(ge=100)] = 100_000
    """Most samples that the mode sustained keeps: of more, every k-th."""
    scope_samples: Annotated[int, Field(ge=0)] = 100
    """Samples of each inner scope, where the runtime can time any, taken after the others."""
