"""The roofline: an operator takes as long as its operations or its bytes, the longer one, and its launch.

    t = max(operations / rate(class, type, width), t_memory) + launches x t_launch(class, type)
    t_memory = activations / bandwidth(activations) + weights / bandwidth(held)
    held = weights of all operators + the largest activations of one
    T = t_call + the sum of t over the operators, one after the other

A rate is a peak times an efficiency. It depends on the width, the products of one position (input times
output channels times kernel): narrow operators fill no vector. Between the widths that are known it is
interpolated on logarithmic axes, beyond them it stays. The bandwidth goes by the bytes that have to be held
until they are used again, so that what a cache holds has the cache's: activations are used by the next
operator, weights by the next inference, and in between every other weight passes through the cache.
Source: S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009; launch and call are added to it,
since at batch 1 small networks spend much of their time there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from edgekd.documents.prediction import Bound, NumberType, OperatorClass
from edgekd.measure.prediction.fused_graph import FusedOperator

Curve = tuple[tuple[float, float], ...]
"""Sizes, rising, with the speed at each."""


@dataclass(frozen=True)
class Speeds:
    """What a device does in a second.

    Attributes:
        rates: operations in a second by class and type, over the operations of one operator.
        bandwidth: bytes in a second over the bytes that are held.
        launches_s: of an operator by class and type.
        move_s: of an operator that is not in `launches_s`.
        call_s: of each inference.
    """

    rates: Mapping[tuple[OperatorClass, NumberType], Curve]
    bandwidth: Curve
    move_s: float
    call_s: float
    launches_s: Mapping[tuple[OperatorClass, NumberType], float] = field(default_factory=dict)

    def rate(self, kind: OperatorClass, number_type: NumberType, width: float) -> float:
        """Operations in a second; of fp32, or of gemm, where the class or the type is not known."""
        for key in ((kind, number_type), (kind, "fp32"), ("gemm", number_type), ("gemm", "fp32")):
            if key in self.rates:
                return at(self.rates[key], width)
        raise AssertionError("every device has a rate for gemm in fp32")

    def launch_s(self, kind: OperatorClass, number_type: NumberType) -> float:
        """Seconds before an operator's work begins."""
        return self.launches_s.get((kind, number_type), self.move_s)


@dataclass(frozen=True)
class Timed:
    """The time of an operator and what it is made of, most of all."""

    operator: FusedOperator
    seconds: float
    bound: Bound


def at(curve: Curve, size: float) -> float:
    """The speed at a size, interpolated on logarithmic axes; that of the nearest size beyond the ends."""
    sizes, speeds = (np.log([point[axis] for point in curve]) for axis in (0, 1))
    return float(np.exp(np.interp(np.log(size), sizes, speeds)))


def time_of(operator: FusedOperator, speeds: Speeds, held_bytes: float) -> Timed:
    """How long an operator takes; one of unknown work its bytes and its launch.

    Args:
        operator: the operator.
        speeds: of the device.
        held_bytes: that pass by before its weights are used again.
    """
    kind, number_type = operator.kind, operator.number_type
    compute_s = memory_s = 0.0
    if operator.operations:
        compute_s = operator.operations / speeds.rate(kind, number_type, operator.width)
    for moved, held in ((operator.moved_bytes, operator.moved_bytes), (operator.weight_bytes, held_bytes)):
        memory_s += moved / at(speeds.bandwidth, held) if moved else 0.0
    launch_s = operator.launches * speeds.launch_s(kind, number_type)
    seconds = max(compute_s, memory_s) + launch_s
    if max(compute_s, memory_s) < launch_s:
        return Timed(operator, seconds, "launch")
    return Timed(operator, seconds, "compute" if compute_s >= memory_s else "memory")


def times_of(operators: Sequence[FusedOperator], speeds: Speeds) -> tuple[Timed, ...]:
    """How long each operator takes."""
    held_bytes = sum(one.weight_bytes for one in operators)
    held_bytes += max((one.moved_bytes for one in operators), default=0)
    return tuple(time_of(one, speeds, held_bytes) for one in operators)
