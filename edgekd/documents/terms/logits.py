"""Sections of the terms that compare logits."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgekd.documents.numbers import NotNegative, Positive
from edgekd.documents.terms.base import SoftTargetSection

View = Literal["weak", "strong"]


class LogitSection(SoftTargetSection):
    """What the terms that compare logits share."""

    view: View = "weak"
    """On which view of a batch the two networks are compared: the task's augmentation, or a stronger one."""


class KDTerm(LogitSection):
    """Soft targets (Hinton et al. 2015)."""

    tag: ClassVar[str] = "kd"
    kind: Literal["kd"] = "kd"
    """The term."""
    weight: NotNegative = 0.9
    """Its factor in the objective."""
    temperature: Positive = 4.0
    """Temperature T of both softmaxes."""


class JSTerm(LogitSection):
    """Jensen-Shannon divergence to the teacher, without labels (SSLD, Cui et al. 2021)."""

    tag: ClassVar[str] = "js"
    kind: Literal["js"]
    """The term."""
    temperature: Positive = 1.0
    """Temperature T of both softmaxes."""


class DKDTerm(LogitSection):
    """Decoupled soft targets: the label's class, and the others among themselves (Zhao et al. 2022)."""

    tag: ClassVar[str] = "dkd"
    kind: Literal["dkd"]
    """The term."""
    ramp_epochs: NotNegative = 20.0
    """Epochs, from its first one, over which its weight grows linearly to the full value."""
    alpha: NotNegative = 1.0
    """Factor of the part that compares the label's class with all others taken together."""
    beta: NotNegative = 8.0
    """Factor of the part that compares the other classes; tuned by pair: 2, 6 or 8 on CIFAR-100."""
    temperature: Positive = 4.0
    """Temperature T of all softmaxes."""


class DISTTerm(LogitSection):
    """Correlation with the teacher's probabilities, over classes and over the batch (Huang et al. 2022)."""

    tag: ClassVar[str] = "dist"
    kind: Literal["dist"]
    """The term."""
    beta: NotNegative = 1.0
    """Factor of the relations between the classes, example by example."""
    gamma: NotNegative = 1.0
    """Factor of the relations between the examples of a batch, class by class."""
    temperature: Positive = 1.0
    """Temperature T of both softmaxes."""


class NKDTerm(LogitSection):
    """Normalized soft targets (Yang et al. 2023)."""

    tag: ClassVar[str] = "nkd"
    kind: Literal["nkd"]
    """The term."""
    gamma: NotNegative = 1.5
    """Factor of the part over the classes other than the label's."""
    temperature: Positive = 1.0
    """Temperature T of the softmaxes over the classes other than the label's."""


class MEALTerm(LogitSection):
    """Cross-entropy with the probabilities of an ensemble of teachers (MEAL V2, Shen and Savvides 2020)."""

    tag: ClassVar[str] = "meal"
    kind: Literal["meal"]
    """The term."""
    temperature: Positive = 1.0
    """Temperature T of both softmaxes."""
    discriminator: bool = False
    """Whether a small network also learns to tell student from teacher, which the student is to prevent."""
