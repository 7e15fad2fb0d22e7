"""A comparison of ways to train one student: the same teacher, budget, seeds and test set for every arm."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Interval, Versions
from edgekd.documents.numbers import Fraction, NotNegative
from edgekd.documents.recipe import Distillation, Recipe
from edgekd.documents.report import StageRecord
from edgekd.documents.run_log import Facts

Finding = Literal["above", "below", "cannot tell"]


class SeedResult(Section):
    """One training of an arm."""

    seed: int
    """Seed of the initial weights, the order and the augmentation."""
    test_top1: Fraction
    """Share of right answers on the test split, of the epoch that validated best."""
    validation_top1: Fraction
    """Share of right answers on the validation split, on which that epoch was chosen."""
    best_epoch: int
    """That epoch, from 1."""
    seconds: NotNegative
    """Wall time of the training, over all its interruptions."""
    label_weight: Fraction | None = None
    """Factor of the labels where it was found for this seed; null where the objective states it."""


class Difference(Section):
    """An arm beside another one, seed by seed and example by example."""

    to: str
    """The other arm."""
    mean: float
    """Mean difference of test top-1, this arm less the other, as a fraction."""
    interval: Interval
    """Its interval over other seeds and other test examples; over other examples alone for one seed."""
    degrees: Annotated[int, Field(ge=1)]
    """Degrees of freedom of the interval."""
    seed_error: NotNegative | None
    """Standard error from the choice of the seeds; null for one seed."""
    example_error: NotNegative
    """Standard error from the choice of the test examples."""
    finding: Finding
    """above or below where the interval leaves zero out."""


class ArmResult(Section):
    """One way of training, over all seeds."""

    name: str
    """The arm, as it was asked for."""
    teacher: Literal["trained", "untrained", "none"]
    """Who teaches: the comparison's teacher, an untrained one, or nobody."""
    objective: Distillation
    """What was trained."""
    seeds: Annotated[tuple[SeedResult, ...], Field(min_length=1)]
    """Its trainings."""
    test_top1: Fraction
    """Mean over the seeds."""
    spread: NotNegative | None
    """Standard deviation over the seeds; null for one seed."""
    seconds: NotNegative
    """Mean wall time of a training."""
    head_seconds: NotNegative = 0.0
    """Wall time of training the heads on the teacher, once for all seeds."""
    differences: tuple[Difference, ...] = ()
    """This arm beside ce, and beside kd where that is an arm."""


class Comparison(Document):
    """Arms side by side, each trained once a seed from the same teacher."""

    title: ClassVar[str] = "comparison"

    name: str
    """The recipe's name."""
    finished: bool
    """Whether every arm that was asked for is there."""
    arms: tuple[ArmResult, ...]
    """The arms, the controls first."""
    seeds: Annotated[tuple[int, ...], Field(min_length=1)]
    """The seeds of every arm."""
    epochs: int
    """Epochs of every training."""
    test_examples: int
    """Examples of the test split, which is the same for every seed."""
    teacher_top1: Fraction | None
    """Share of right answers of the teacher on the test split; null where it is no network."""
    flags: tuple[str, ...] = ()
    """What speaks against a claim that one could draw from the figures, a line each."""
    notes: tuple[str, ...] = ()
    """How the figures are to be read, a line each."""
    recipe: Recipe
    """The resolved recipe."""
    stages: tuple[StageRecord, ...]
    """How the comparison came about."""
    versions: Versions
    """What made it."""
    facts: Facts
    """The machine."""
