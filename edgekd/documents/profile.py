"""A device profile (profiles/*.toml): what a device is, each number with its provenance. No addresses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from edgekd.documents.base import Document, Section
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import DocumentError

Provenance = Literal["vendor", "secondary", "derived", "measured", "unverified"]
Int8Instruction = Literal["amx", "vnni", "avx2", "dotprod", "i8mm", "neon", "none"]
ProfileId = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Figure(Section):
    """A number with where it comes from. Peaks are dense, never 2:4-sparse."""

    value: float
    """The number, in the unit that its key names."""
    provenance: Provenance
    """vendor: primary text; secondary: another's page; derived: arithmetic; measured: here; unverified."""
    source: str
    """The text, the formula or the command."""


class Detect(Section):
    """What a device must say of itself to be this one; keys that are not given are not compared."""

    machine: tuple[str, ...] = ()
    """Architectures, such as x86_64 or aarch64."""
    isa: tuple[str, ...] = ()
    """Instruction-set features that it must have."""
    isa_any: tuple[str, ...] = ()
    """Features of which it must have at least one."""
    isa_absent: tuple[str, ...] = ()
    """Features that it must not have."""
    board: str | None = None
    """Start of the device-tree model."""
    board_any: tuple[str, ...] = ()
    """Starts of the device-tree model of which one is enough, where systems spell it differently."""
    cpu: tuple[str, ...] = ()
    """Parts of the processor's name of which one is enough."""
    gpu: str | None = None
    """The GPU's whole name, as its driver reports it."""
    min_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Least physical memory."""

    def boards(self) -> tuple[str, ...]:
        """Every start of the device-tree model that will do; none where the board is not compared."""
        return self.board_any if self.board is None else (self.board, *self.board_any)


class Cpu(Section):
    """The processor."""

    name: str
    """Its name."""
    cores: Figure | None = None
    """Number of cores."""
    int8: Int8Instruction
    """Its best instruction for int8 products; avx2 saturates at 16 bits, neon has no dot product."""


class Gpu(Section):
    """The GPU."""

    name: str
    """Its name."""
    sm: Annotated[int, Field(ge=50)]
    """Compute capability without the point, such as 87."""
    sm_count: Figure | None = None
    """Number of streaming multiprocessors."""


class Npu(Section):
    """An accelerator for integer products beside processor and GPU."""

    name: str
    """Its name."""
    int8_tops: Figure | None = None
    """Dense peak."""
    runtimes: tuple[RuntimeName, ...] = ()
    """Runtimes of edgekd that reach it; none where edgekd runs the student on the processor."""
    note: str = ""
    """What reaches it otherwise."""


class OperatingPoint(Section):
    """One way to run the device: a power mode with its clocks."""

    default: bool = False
    """Whether the device is in this mode as delivered."""
    unit: bool = False
    """Whether it is a unit to scale from, one core at 1 GHz, and no state that a machine is in."""
    description: str = ""
    """What sets it."""
    nvpmodel: str | None = None
    """Name of the mode, as `nvpmodel -q` prints it on a Jetson."""
    power_w: Figure | None = None
    """Power budget."""
    cpu_cores: Figure | None = None
    """Processor cores that are on, where the mode turns some off."""
    cpu_mhz: Figure | None = None
    """Highest processor clock."""
    sm_count: Figure | None = None
    """Streaming multiprocessors that are on, where the mode turns some off."""
    gpu_mhz: Figure | None = None
    """Highest GPU clock."""
    memory_gb_s: Figure | None = None
    """Peak memory bandwidth."""
    fp32_tflops: Figure | None = None
    """Dense peak."""
    fp16_tflops: Figure | None = None
    """Dense peak."""
    int8_tops: Figure | None = None
    """Dense peak."""


class ProfileRuntime(Section):
    """A runtime that the device is known to have."""

    runtime: Literal["onnxruntime", "tensorrt"]
    """The runtime."""
    versions: str = ""
    """Versions that are known to work, for people."""


class Profile(Document):
    """What a device is."""

    title: ClassVar[str] = "profile"

    id: ProfileId
    """Name of the profile; the file's name without its suffix."""
    description: str
    """One line for people."""
    aliases: tuple[str, ...] = ()
    """Part numbers and other names."""
    kind: Literal["x86", "arm-board", "jetson", "nvidia-gpu", "other", "local"]
    """Family of the device."""
    detect: Detect
    """How to recognize it."""
    cpu: Cpu | None = None
    """The processor; null where it is any host."""
    gpu: Gpu | None = None
    """The GPU."""
    npu: Npu | None = None
    """The accelerator for integers."""
    memory_bytes: Figure | None = None
    """Memory that the network may use."""
    operating_points: dict[str, OperatingPoint] = {}
    """Ways to run it, by name."""
    runtimes: tuple[ProfileRuntime, ...]
    """Runtimes that it has."""
    notes: tuple[str, ...] = ()
    """What a user should know, a line each."""

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, where: str | Path) -> Self:
        """Validate data read from `where`; of a sparse figure it is said why it has no key.

        Raises:
            DocumentError: with every problem of the data, one line each.
        """
        try:
            return super().parse(data, where=where)
        except DocumentError as error:
            problems = [_without_sparse(line) for line in error.problems]
            raise DocumentError(where, problems, hint=error.hint) from None

    @model_validator(mode="after")
    def _one_default(self) -> Profile:
        defaults = [name for name, point in self.operating_points.items() if point.default]
        if self.operating_points and len(defaults) != 1:
            raise ValueError("exactly one operating point has default = true")
        return self


def _without_sparse(problem: str) -> str:
    """A problem in which an unknown key asks for a sparse figure, with the reason why there is none."""
    key, unknown, _ = problem.partition(": unknown key")
    if not unknown or "sparse" not in key.rpartition(".")[2].casefold():
        return problem
    return (
        f"{key}: peaks are dense, and a 2:4-sparse figure has no key: networks reach it only after pruning; "
        "write the dense one, half of it, as int8_tops or fp16_tflops"
    )
