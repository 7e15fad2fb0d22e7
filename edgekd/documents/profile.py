"""A device profile (profiles/*.toml): what a device is, each number with its provenance. No addresses."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from edgekd.documents.base import Document, Section

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
    gpu: str | None = None
    """The GPU's whole name, as its driver reports it."""
    min_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Least physical memory."""


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


class OperatingPoint(Section):
    """One way to run the device: a power mode with its clocks."""

    default: bool = False
    """Whether the device is in this mode as delivered."""
    description: str = ""
    """What sets it."""
    power_w: Figure | None = None
    """Power budget."""
    cpu_mhz: Figure | None = None
    """Highest processor clock."""
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
    kind: Literal["x86", "arm-board", "jetson", "nvidia-gpu", "local"]
    """Family of the device."""
    detect: Detect
    """How to recognize it."""
    cpu: Cpu | None = None
    """The processor; null where it is any host."""
    gpu: Gpu | None = None
    """The GPU."""
    memory_bytes: Figure | None = None
    """Memory that the network may use."""
    operating_points: dict[str, OperatingPoint] = {}
    """Ways to run it, by name."""
    runtimes: tuple[ProfileRuntime, ...]
    """Runtimes that it has."""
    notes: tuple[str, ...] = ()
    """What a user should know, a line each."""

    @model_validator(mode="after")
    def _one_default(self) -> Profile:
        defaults = [name for name, point in self.operating_points.items() if point.default]
        if self.operating_points and len(defaults) != 1:
            raise ValueError("exactly one operating point has default = true")
        return self
