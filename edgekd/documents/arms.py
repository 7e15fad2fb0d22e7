"""The arms of quantization side by side: one student, several ways to make it small, on one machine."""

from __future__ import annotations

from typing import ClassVar

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Interval, Versions
from edgekd.documents.measurement import Accuracy, Ratio
from edgekd.documents.numbers import Fraction, NotNegative
from edgekd.documents.recipe import Recipe
from edgekd.documents.report import RowLatency, StageRecord
from edgekd.documents.run_log import Facts
from edgekd.documents.scheme import Scheme


class PairedChange(Section):
    """Test top-1 of an arm less that of another network, on the same examples."""

    mean: float
    """Mean difference, as a fraction."""
    interval: Interval
    """Its score interval (Tango 1998), over other test examples."""


class QuantizedArmResult(Section):
    """One way to quantize the student."""

    name: str
    """The arm, as it is asked for."""
    description: str
    """What it is, in a line."""
    scheme: Scheme | None
    """The scheme; null where it is no scheme of edgekd's."""
    seconds: NotNegative
    """Time of the stages that made it, beyond the fp32 student."""
    validation_top1: Fraction | None
    """Share of right answers on the validation split, as torch computes it; null where it was not asked."""
    validation_kl: NotNegative | None
    """KL(fp32 student || arm) on the validation split, in nats; null where it was not asked."""
    drop_pt: float | None
    """Percentage points below the fp32 student on validation."""
    accuracy: Accuracy
    """Top-1 on the test split, on the runtime."""
    change: PairedChange | None
    """Beside the fp32 student, on the runtime; null for that student itself."""
    agreement: Fraction
    """Share of test examples with the same top class as what the graph was made from."""
    latency_ms: RowLatency
    """Latency, one example at a time."""
    ratio: Ratio | None
    """Latency over that of the fp32 student, measured side by side; null for that student itself."""
    size_bytes: int
    """Size of the graph's file."""
    int8_ops: int
    """Weighted operators that run in int8."""
    weighted_ops: int
    """Weighted operators."""
    on_front: bool
    """Whether no other arm is better in one of top-1, latency and size, and as good in the others."""
    ships: bool
    """Whether the recipe ships it."""


class Arms(Document):
    """The arms side by side."""

    title: ClassVar[str] = "arms"

    name: str
    """The recipe's name."""
    runtime: str
    """The runtime that accuracy and latency were measured on."""
    arms: tuple[QuantizedArmResult, ...]
    """The arms, in the order in which they were asked for."""
    not_done: tuple[str, ...] = ()
    """Arms that the recipe cannot have, and why."""
    why: str
    """Why the arm that ships does."""
    notes: tuple[str, ...] = ()
    """What a reader should know, a line each."""
    warnings: tuple[str, ...] = ()
    """What makes the figures less certain, a line each."""
    recipe: Recipe
    """The resolved recipe."""
    stages: tuple[StageRecord, ...]
    """How the arms came about."""
    facts: Facts
    """The machine."""
    versions: Versions
    """What made it."""
