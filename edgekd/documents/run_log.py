"""What the kit writes: raw times, facts of the device, errors. The device records, the host judges."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section

Nanoseconds = Annotated[int, Field(ge=0)]


class Facts(Section):
    """What the device said of itself; null where it could not be read."""

    machine: str
    """Architecture, as the kernel names it: x86_64, aarch64."""
    system: str
    """Operating system and kernel."""
    cpu: str | None
    """Name of the processor."""
    board: str | None = None
    """Device-tree model of a board, such as `Raspberry Pi 5 Model B Rev 1.0`."""
    isa: tuple[str, ...]
    """Instruction-set features that matter here, such as avx2, avx512_vnni, asimddp."""
    cores: int
    """Processors that the process may use."""
    memory_bytes: int | None
    """Physical memory."""
    governor: str | None
    """Frequency governor of the first processor."""
    gpus: tuple[str, ...] = ()
    """Name and compute capability of each NVIDIA GPU, such as `NVIDIA L4 (8.9)`."""
    hypervisor: bool | None = None
    """Whether the machine is virtual."""
    cgroup_cpus: float | None = None
    """Processors that the control group's quota allows; null for no quota."""
    versions: dict[str, str]
    """python, numpy and the runtime."""


class Conditions(Section):
    """The state of the device around a measurement."""

    load1: float | None
    """One-minute load average before."""
    steal_fraction: float | None
    """Processor time stolen by the hypervisor during the measurement."""
    throttled: bool | None = None
    """Whether the device reported throttling."""


class GraphLog(Section):
    """What happened to one graph."""

    name: str
    """What the job calls it."""
    load_ns: Nanoseconds
    """Time to load the graph into the runtime."""
    first_ns: Nanoseconds
    """Time of the first inference."""
    build_ns: Nanoseconds | None = None
    """Time to build the engine from the graph, apart from `load_ns`; null where nothing is built."""
    warmup_ns: Nanoseconds = 0
    """Time of the warm-up."""
    warmup_converged: bool | None = None
    """Whether the warm-up ended by convergence."""
    latency_ns: tuple[Nanoseconds, ...] = ()
    """Every sample, in order."""
    block_of_sample: tuple[int, ...] = ()
    """Round in which each sample was taken; samples of two graphs from one round were taken side by side."""


class RunLog(Document):
    """What one process of the kit did."""

    title: ClassVar[str] = "run log"

    mode: str
    """The job's mode."""
    runtime: str
    """The job's runtime."""
    facts: Facts
    """What the device is."""
    conditions: Conditions | None = None
    """The state of the device around the measurement."""
    import_ns: Nanoseconds | None = None
    """Time to import the runtime, in the mode `cold`."""
    process_ns: Nanoseconds | None = None
    """Time from the start of the program to the first output, in the mode `cold`."""
    graphs: tuple[GraphLog, ...] = ()
    """What happened to each graph."""
    outputs_sha256: str | None = None
    """Digest of the file of outputs."""
    error: str | None = None
    """Why the job failed."""
