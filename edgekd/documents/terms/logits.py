"""Sections of the terms that compare logits."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgekd.documents.numbers import NotNegative, Positive
from edgekd.documents.terms.base import TermSection

View = Literal["weak", "strong"]


class LogitSection(TermSection):
    """What the terms that compare logits share."""

    view: View = "weak"
    """On which view of a batch the two networks are compared: the task's augmentation, or a stronger one."""
    standardize: bool = False
    """Bring the logits of each example to mean 0 and deviation 1 first (Sun et al. 2024); best at T = 2."""


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
