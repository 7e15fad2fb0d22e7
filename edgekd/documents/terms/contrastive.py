"""Sections of the terms that tell examples apart."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.numbers import Fraction, NotNegative, Positive
from edgekd.documents.terms.base import TermSection


class CRDTerm(TermSection):
    """Contrastive representation distillation (Tian et al. 2020)."""

    tag: ClassVar[str] = "crd"
    kind: Literal["crd"]
    """The term."""
    weight: NotNegative = 0.8
    """Its factor in the objective."""
    student_tap: str = "pool"
    """The student's feature; averaged over its positions where it is a map."""
    teacher_tap: str = "pool"
    """The teacher's feature; averaged over its positions where it is a map."""
    dimension: Annotated[int, Field(ge=2)] = 128
    """Width of the space in which the two are compared."""
    negatives: Annotated[int, Field(ge=1)] = 16384
    """Examples of other classes that each example is told from; all of them where there are no more."""
    temperature: Positive = 0.07
    """Temperature of the scores."""
    momentum: Fraction = 0.5
    """Part of a remembered embedding that stays when its example is seen again."""
