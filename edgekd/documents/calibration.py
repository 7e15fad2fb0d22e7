"""A calibration: what micro-benchmarks found of a device, for predictions of it alone."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Sha256
from edgekd.documents.numbers import NotNegative, Positive
from edgekd.documents.prediction import NumberType, OperatorClass
from edgekd.documents.run_log import Facts


class CalibrationKey(Section):
    """What a calibration holds for: another processor, version, number of threads or kit asks for its own."""

    processor: str
    """Name of the processor, else its architecture."""
    runtime: str
    """The runtime."""
    runtime_version: str
    """Its version."""
    threads: Annotated[int, Field(ge=1)]
    """Threads of the runtime."""
    kit_sha256: Sha256
    """Digest of the kit that measured."""


class Launch(Section):
    """What an operator of a class takes however small it is."""

    kind: OperatorClass
    """The class."""
    number_type: NumberType
    """What it computes with."""
    launch_us: NotNegative
    """Microseconds."""


class Rate(Section):
    """Speed of one class of operators at one width."""

    kind: OperatorClass
    """The class."""
    number_type: NumberType
    """What it computes with."""
    width: Positive
    """Products of one position (weights that one position meets); of others: operations of one operator."""
    gops: Positive
    """Billions of operations in a second."""


class Bandwidth(Section):
    """Speed of memory at one size of what it holds."""

    held_bytes: Positive
    """Bytes that are read and written again and again, and so lie in the cache that holds them."""
    gb_s: Positive
    """Billions of bytes in a second."""


class MicroBenchmark(Section):
    """One graph that was measured."""

    name: str
    """What it does, how large and how often."""
    value_ms: Positive
    """Latency while nothing disturbs it."""
    lower_ms: Positive
    """Its lower bound."""
    upper_ms: Positive
    """Its upper bound."""


class Calibration(Document):
    """What micro-benchmarks found of a device."""

    title: ClassVar[str] = "calibration"

    key: CalibrationKey
    """What it holds for."""
    facts: Facts
    """What the device said of itself."""
    call_us: NotNegative
    """Microseconds of a call whatever the graph does."""
    move_us: NotNegative
    """Microseconds of an operator without work of its own."""
    launches: tuple[Launch, ...]
    """What the others take before their work begins."""
    rates: Annotated[tuple[Rate, ...], Field(min_length=1)]
    """Speeds of the operators."""
    bandwidths: Annotated[tuple[Bandwidth, ...], Field(min_length=1)]
    """Speeds of the memory, caches included."""
    benchmarks: tuple[MicroBenchmark, ...]
    """What was measured."""
    warnings: tuple[str, ...] = ()
    """What makes it less certain, a line each."""
