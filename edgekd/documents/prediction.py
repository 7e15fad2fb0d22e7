"""A prediction: how long a graph might take on a device that did not run it. It ranks, it passes no gate.

Nothing of it is named as in a measurement: low, mid and high in the place of percentiles, and no samples.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Sha256
from edgekd.documents.numbers import Fraction, Positive

Count = Annotated[int, Field(ge=0)]
OperatorClass = Literal[
    "conv", "depthwise", "pointwise", "gemm", "elementwise", "pooling", "data movement", "other"
]
"""What work an operator is; `other` is work that edgekd cannot count."""
NumberType = Literal["fp32", "fp16", "int8"]
"""What an operator computes with."""
Bound = Literal["compute", "memory", "launch"]
"""What an operator's time is made of, most of all."""
Method = Literal["roofline, generic efficiencies", "roofline, calibrated efficiencies"]


class PredictedOperator(Section):
    """One operator as a runtime would run it, with those that are folded into it."""

    name: str
    """The operator of the graph that it is called after."""
    kind: OperatorClass
    """What work it is."""
    number_type: NumberType
    """What it computes with."""
    macs: Count
    """Products that are added up."""
    operations: Count
    """Two for each of them, and one for each element of what is folded in."""
    read_bytes: Count
    """Weights and activations that it reads, in their own types."""
    written_bytes: Count
    """Activations that it writes."""
    mid_ms: Positive
    """Its part of the prediction."""
    bound: Bound
    """What that part is made of, most of all."""


class Prediction(Document):
    """How long one inference might take, as an interval. Not a measurement."""

    title: ClassVar[str] = "prediction"

    graph: str
    """File name of the graph."""
    graph_sha256: Sha256
    """Digest of the graph."""
    profile: str
    """The device's profile; `local` is the machine at hand."""
    operating_point: str | None = None
    """Its operating point."""
    runtime: str
    """The runtime that is taken to run the graph."""
    threads: Annotated[int, Field(ge=1)]
    """Threads of the runtime."""
    low_ms: Positive
    """Lower end of the interval."""
    mid_ms: Positive
    """The prediction."""
    high_ms: Positive
    """Upper end of the interval."""
    method: Method
    """How it was made."""
    calibration: str | None = None
    """The calibration that it rests on; null for generic efficiencies, which nobody measured there."""
    coverage: Fraction
    """Share of the operators whose work could be counted."""
    missing_ops: dict[str, int] = {}
    """Types of the others with their number; they are not in `mid_ms` and widen the interval."""
    operators: tuple[PredictedOperator, ...]
    """Every operator, in the graph's order."""
    notes: tuple[str, ...] = ()
    """What a reader should know, a line each."""

    @property
    def macs(self) -> int:
        """Products of one inference that are added up."""
        return sum(one.macs for one in self.operators)

    @property
    def text(self) -> str:
        """The prediction as it is always written."""
        return estimate(self.low_ms, self.mid_ms, self.high_ms)


def estimate(low_ms: float, mid_ms: float, high_ms: float) -> str:
    """`est. 1.2 ms (0.41 to 3.7)`: two significant digits, all in the unit of the middle one."""
    unit, factor = next(
        (unit, factor) for unit, least_ms, factor in _UNITS if round_to_two(mid_ms) >= least_ms
    )
    low, mid, high = (_two_digits(value * factor) for value in (low_ms, mid_ms, high_ms))
    return f"est. {mid} {unit} ({low} to {high})"


_UNITS = (("s", 1000.0, 1e-3), ("ms", 1.0, 1.0), ("µs", 0.0, 1e3))


def round_to_two(value: float) -> float:
    """A positive number, rounded to two significant digits."""
    return round(value, 1 - math.floor(math.log10(value)))


def _two_digits(value: float) -> str:
    rounded = round_to_two(value)
    decimals = max(0, 1 - math.floor(math.log10(rounded)))
    return f"{rounded:.{decimals}f}"
