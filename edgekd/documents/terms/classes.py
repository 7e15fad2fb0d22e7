"""Sections of the terms that read a feature along with the class of its example."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.numbers import NotNegative
from edgekd.documents.terms.base import TermSection
from edgekd.documents.terms.logits import View


class USKDTerm(TermSection):
    """Soft labels of the network's own making, without a teacher (Yang et al. 2023)."""

    tag: ClassVar[str] = "uskd"
    needs_teacher: ClassVar[bool] = False
    kind: Literal["uskd"]
    """The term."""
    view: View = "weak"
    """The view of a batch: the task's augmentation, or a stronger one."""
    student_tap: str | None = None
    """The feature on which the weak head sits; the last stage but one when not given."""
    alpha: NotNegative = 1.0
    """Factor of the part of the label's class; 0.1 on CIFAR-100."""
    beta: NotNegative = 0.1
    """Factor of the part of the other classes."""
    mu: NotNegative = 0.005
    """Factor of the weak head's cross-entropy; 0.1 on CIFAR-100."""


class NDTerm(TermSection):
    """Norm and direction of the penultimate feature (Wang et al. 2023)."""

    tag: ClassVar[str] = "nd"
    kind: Literal["nd"]
    """The term."""
    weight: NotNegative = 2.0
    """Its factor in the objective."""
    view: View = "weak"
    """On which view of a batch the two networks are compared: the task's augmentation, or a stronger one."""
    student_tap: str = "pool"
    """The student's feature; averaged over its positions where it is a map."""
    teacher_tap: str = "pool"
    """The teacher's feature; averaged over its positions where it is a map."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5
    """Dropout in the projection of the student's feature, which there is where the widths differ."""
