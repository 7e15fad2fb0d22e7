"""Sections of the terms that learn from four transformations of an example (SSKD and its relatives)."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import Field, model_validator

from edgekd.documents.numbers import Fraction, NotNegative, Positive
from edgekd.documents.terms.base import SoftTargetSection, TermSection
from edgekd.documents.training import Training

_Section = TypeVar("_Section", bound=TermSection)


def _with_one_of(section: _Section, *weights: str) -> _Section:
    """The section, if one of these weights of it is not zero.

    Raises:
        ValueError: they all are.
    """
    if not any(getattr(section, weight) for weight in weights):
        raise ValueError(f"{' and '.join(weights)} are zero: nothing would be learned")
    return section


class HeadTraining(Training):
    """How the heads on the frozen teacher are trained, before the student."""

    epochs: Annotated[int, Field(ge=1)] = 60
    """Passes over the training set."""
    batch_size: Annotated[int, Field(ge=2)] = 64
    """Examples in a step, over all devices."""
    learning_rate: Positive = 0.05
    """Peak learning rate."""
    schedule: Literal["cosine", "step"] = "step"
    """Cosine to one percent of the peak, or steps at `milestones`."""
    warmup_epochs: NotNegative = 0.0
    """Epochs of linear warm-up."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (30, 45)
    """Epochs at which a step schedule multiplies the rate by `gamma`; they fall before the last epoch."""

    @model_validator(mode="after")
    def _milestones_fall_inside(self) -> HeadTraining:
        if any(milestone >= self.epochs for milestone in self.milestones):
            fitting = sorted({max(1, self.epochs // 2), max(1, 3 * self.epochs // 4)})
            raise ValueError(
                f"milestones {list(self.milestones)} do not all fall inside {self.epochs} epochs: "
                f"give milestones too, such as {fitting}, or schedule = 'cosine' and milestones = []"
            )
        return self


class LongHeadTraining(HeadTraining):
    """How the auxiliary classifiers on the frozen teacher are trained, before the student."""

    epochs: Annotated[int, Field(ge=1)] = 100
    """Passes over the training set."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = (30, 60, 90)
    """Epochs at which a step schedule multiplies the rate by `gamma`; they fall before the last epoch."""


class HeadedSection(SoftTargetSection):
    """A term that needs a head on the frozen teacher, which is trained before the student."""

    head_training: HeadTraining = HeadTraining()
    """How that head is trained."""

    @property
    def needs_head(self) -> bool:
        """Whether the head is used at all."""
        return True

    def head(self) -> dict[str, Any]:
        """What the head on the teacher depends on, as a JSON value."""
        return {"kind": self.tag, "head_training": self.head_training.model_dump(mode="json")}


class SSKDTerm(HeadedSection):
    """Self-supervision similarities and transformed views (SSKD, Xu et al. 2020)."""

    tag: ClassVar[str] = "sskd"
    kind: Literal["sskd"]
    """The term."""
    transformed_weight: NotNegative = 2.7
    """Factor of the soft targets on the three transformed views."""
    transformed_temperature: Positive = 4.0
    """Temperature of these soft targets."""
    transformed_ratio: Fraction = 1.0
    """Part of the transformed examples that the teacher gets wrong which is kept, the least wrong first."""
    similarity_weight: NotNegative = 10.0
    """Factor of the similarities between transformed and plain examples."""
    similarity_temperature: Positive = 0.5
    """Temperature of these similarities."""
    similarity_ratio: Fraction = 0.75
    """Part of the rows whose own source the teacher does not find which is kept, the least wrong first."""
    student_tap: str = "pool"
    """The student's feature; averaged over its positions where it is a map."""
    teacher_tap: str = "pool"
    """The teacher's feature; averaged over its positions where it is a map."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> SSKDTerm:
        return _with_one_of(self, "transformed_weight", "similarity_weight")

    @property
    def needs_head(self) -> bool:
        """Whether the head is used at all."""
        return self.similarity_weight > 0

    def head(self) -> dict[str, Any]:
        """What the head on the teacher depends on, as a JSON value."""
        return {**super().head(), "teacher_tap": self.teacher_tap}


class HSAKDTerm(HeadedSection):
    """Auxiliary classifiers over class and transformation at every stage (HSAKD, Yang et al. 2021)."""

    tag: ClassVar[str] = "hsakd"
    kind: Literal["hsakd"]
    """The term."""
    temperature: Positive = 3.0
    """Temperature T of every softmax."""
    auxiliary_weight: NotNegative = 1.0
    """Factor of the soft targets between the auxiliary classifiers of each pair of stages."""
    logits_weight: NotNegative = 1.0
    """Factor of the soft targets between the networks themselves, on all four views."""
    student_taps: tuple[str, ...] = ()
    """Stages of the student that get an auxiliary classifier, in its order; all stages when not given."""
    teacher_taps: tuple[str, ...] = ()
    """Stages of the teacher that teach them, one to one; all stages when not given."""
    head_training: LongHeadTraining = LongHeadTraining()
    """How the teacher's auxiliary classifiers are trained."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> HSAKDTerm:
        return _with_one_of(self, "auxiliary_weight", "logits_weight")

    @property
    def needs_head(self) -> bool:
        """Whether the head is used at all."""
        return self.auxiliary_weight > 0

    def head(self) -> dict[str, Any]:
        """What the classifiers on the teacher depend on, as a JSON value."""
        return {**super().head(), "teacher_taps": list(self.teacher_taps)}


class LSSKDTerm(SoftTargetSection):
    """Every stage learns class and transformation, and from the deepest one; no teacher (LSSKD 2025)."""

    tag: ClassVar[str] = "lsskd"
    needs_teacher: ClassVar[bool] = False
    kind: Literal["lsskd"]
    """The term."""
    temperature: Positive = 3.0
    """Temperature T of the softmaxes that one stage learns from another."""
    joint_weight: NotNegative = 1.0
    """Factor of the cross-entropy with class and transformation, summed over the stages."""
    transfer_weight: NotNegative = 1.0
    """Factor of the soft targets from the deepest auxiliary classifier."""
    alignment_weight: NotNegative = 1.0
    """Factor of the squared distance to the deepest auxiliary feature."""
    student_taps: tuple[str, ...] = ()
    """Stages that get an auxiliary classifier, in the network's order; all stages when not given."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> LSSKDTerm:
        return _with_one_of(self, "joint_weight", "transfer_weight", "alignment_weight")


class SLATerm(SoftTargetSection):
    """One joint classifier over class and transformation, aggregated; no teacher (SLA, Lee et al. 2020)."""

    tag: ClassVar[str] = "sla"
    needs_teacher: ClassVar[bool] = False
    kind: Literal["sla"]
    """The term."""
    temperature: Positive = 1.0
    """Temperature T of the aggregated prediction and of the network's own."""
    joint_weight: NotNegative = 1.0
    """Factor of the cross-entropy with class and transformation."""
    aggregate_weight: NotNegative = 1.0
    """Factor of the soft targets from the aggregated prediction."""
    student_tap: str = "pool"
    """The feature that the joint classifier reads; averaged over its positions where it is a map."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> SLATerm:
        return _with_one_of(self, "joint_weight", "aggregate_weight")
