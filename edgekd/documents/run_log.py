"""What the kit writes: raw times, facts of the device, errors. The device records, the host judges."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.conditions import Conditions

__all__ = ["Conditions", "Energy", "Facts", "GraphLog", "Memory", "RunLog"]

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
    turbo: bool | None = None
    """Whether clocks above the nominal one are allowed."""
    smt: bool | None = None
    """Whether two threads share a core."""
    gpus: tuple[str, ...] = ()
    """Name and compute capability of each NVIDIA GPU, such as `NVIDIA L4 (8.9)`."""
    hypervisor: bool | None = None
    """Whether the machine is virtual."""
    container: bool | None = None
    """Whether the process runs in a container."""
    cgroup_cpus: float | None = None
    """Processors that the control group's quota allows; null for no quota."""
    power_mode: str | None = None
    """Name of the power mode, such as nvpmodel's `25W`."""
    cpu_max_mhz: float | None = None
    """Highest clock that the processor may run at."""
    versions: dict[str, str]
    """python, numpy and the runtime; the NVIDIA driver and a Jetson's Linux (l4t) where there are any."""


class Memory(Section):
    """Memory of the process that ran the graphs."""

    peak_rss_bytes: int | None
    """Most resident memory since just before a graph was loaded, interpreter and runtime included."""
    start_rss_bytes: int | None = None
    """Resident memory just before a graph was loaded."""
    device_bytes: int | None = None
    """Memory of the accelerator that the process holds; null where there is none or it cannot be read."""


class Energy(Section):
    """Energy over the timed inferences, of what `source` names, idle not subtracted."""

    joules: float | None
    """Energy; null where it cannot be read, never 0."""
    seconds: float | None = None
    """Time over which it was read."""
    source: str | None = None
    """The counter or sensor: `INA3221 VDD_IN`, the whole module; `NVML, the GPU alone`; `RAPL package-0`."""
    reason: str | None = None
    """Why there is no figure."""


class GraphLog(Section):
    """What happened to one graph."""

    name: str
    """What the job calls it."""
    load_ns: Nanoseconds
    """Time to load the graph into the runtime."""
    first_ns: Nanoseconds
    """Time of the first inference."""
    note: str | None = None
    """What the runtime did otherwise than it was asked: operators that fell back to another provider."""
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
    at_ns: tuple[Nanoseconds, ...] = ()
    """Start of each sample since the first one, in the modes sustained and paced."""
    inferences: int = 0
    """Inferences that were timed or ran between timed ones, in the modes sustained and paced."""
    late: int = 0
    """Inferences of the mode paced that began after the next one was due."""
    scope_ns: dict[str, tuple[Nanoseconds, ...]] = {}
    """Samples of inner scopes: `device`, copies and inference of the accelerator; `compute`, no copies."""


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
    memory: Memory | None = None
    """Memory of the process."""
    energy: Energy | None = None
    """Energy of the timed inferences."""
    outputs_sha256: str | None = None
    """Digest of the file of outputs."""
    error: str | None = None
    """Why the job failed."""
