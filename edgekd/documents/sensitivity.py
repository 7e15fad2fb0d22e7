"""Which layers a student can not have quantized, what it costs to spare them, and the scheme that follows."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Interval, Versions
from edgekd.documents.numbers import Fraction, NotNegative, Positive
from edgekd.documents.run_log import Facts
from edgekd.documents.scheme import LayerPrecision, Scheme


class Worth(Section):
    """What a network is worth on validation examples."""

    top1: Fraction
    """Share of right answers."""
    drop_pt: float
    """Percentage points of top-1 below the fp32 student."""
    kl: NotNegative
    """Mean divergence of its class probabilities from those of the fp32 student, in nats."""
    count: Annotated[int, Field(ge=1)]
    """Examples."""


class Cost(Section):
    """What a graph costs beside that of the scheme that was started from."""

    what: str
    """`latency`, measured in blocks side by side, or `weights`, bytes of the weights."""
    ratio: Positive
    """Cost of the graph over that of the start; the median over the processes where it was measured."""
    interval: Interval | None = None
    """Interval over the processes."""
    samples: Annotated[int, Field(ge=0)] = 0
    """Samples of the graph over all processes."""
    processes: Annotated[int, Field(ge=0)] = 0
    """Fresh processes."""


class LayerSensitivity(Section):
    """One layer with more precision, and all others as they were."""

    name: str
    """The layer, as a scheme names it."""
    precision: LayerPrecision
    """What the scheme that was found has for it."""
    gain: float
    """By how much the divergence falls when this layer alone has more precision, in nats."""
    top1: Fraction
    """Share of right answers then."""
    cost: Cost
    """What that costs."""


class TensorSensitivity(Section):
    """One activation in float, while every layer around it stays in int8."""

    name: str
    """Where in the network it is made."""
    gain: float
    """By how much the divergence falls, in nats."""
    layers: tuple[str, ...]
    """The layers that would have to be in float to spare it."""


class GroupSensitivity(Section):
    """Neighboring layers with more precision together, which spares the tensor between them."""

    layers: tuple[str, ...]
    """The layers."""
    gain: float
    """By how much the divergence falls, in nats."""
    cost: Cost
    """What that costs."""


class SearchStep(Section):
    """A set of layers that the search came to, and what it is worth on all validation examples."""

    layers: tuple[str, ...]
    """The layers with more precision."""
    drop_pt: float
    """Percentage points of top-1 below the fp32 student."""


class Sensitivity(Document):
    """The analysis of one student."""

    title: ClassVar[str] = "sensitivity"

    name: str
    """The recipe's name."""
    precision: LayerPrecision
    """What a spared layer has: `float`, or `int8` where the others have weights of 4 bits."""
    budget_pt: NotNegative
    """Percentage points below the fp32 student that are good enough."""
    within: bool
    """Whether the scheme that was found is within the budget."""
    scheme: Scheme
    """The scheme that was found."""
    fp32_top1: Fraction
    """Share of right answers of the fp32 student on validation."""
    start: Worth
    """The scheme that was started from."""
    found: Worth
    """The scheme that was found, calibrated anew."""
    cost: Cost
    """What it costs beside the start."""
    all_cost: Cost
    """What it costs to spare every layer."""
    examples: Annotated[int, Field(ge=1)]
    """Validation examples on which layers were compared."""
    layers: tuple[LayerSensitivity, ...]
    """Every layer that the start quantizes, in the order of the network."""
    tensors: tuple[TensorSensitivity, ...] = ()
    """Every activation that the start quantizes, in the order of the network."""
    groups: tuple[GroupSensitivity, ...] = ()
    """Neighbors that were tried together."""
    steps: tuple[SearchStep, ...]
    """What the search tried on all validation examples, in its order."""
    notes: tuple[str, ...] = ()
    """What a reader should know, a line each."""
    facts: Facts | None = None
    """The machine that latency was measured on; null where it was not."""
    versions: Versions
    """What made it."""
