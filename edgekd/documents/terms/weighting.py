"""The section of the term that weights another term's examples."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, Tag, field_validator

from edgekd.documents.terms.base import TermSection
from edgekd.documents.terms.choice import by_kind
from edgekd.documents.terms.classes import NDTerm
from edgekd.documents.terms.features import ATTerm, FitNetTerm, MiniLMTerm, ReviewKDTerm
from edgekd.documents.terms.logits import DKDTerm, JSTerm, KDTerm, MEALTerm, NKDTerm

PER_EXAMPLE: tuple[type[TermSection], ...] = (
    KDTerm,
    JSTerm,
    DKDTerm,
    NKDTerm,
    MEALTerm,
    NDTerm,
    FitNetTerm,
    ATTerm,
    ReviewKDTerm,
    MiniLMTerm,
)
"""Sections of the terms that have a distance to the teacher for each example, and no head on the teacher."""

PerExample = Annotated[
    Annotated[KDTerm, Tag("kd")]
    | Annotated[JSTerm, Tag("js")]
    | Annotated[DKDTerm, Tag("dkd")]
    | Annotated[NKDTerm, Tag("nkd")]
    | Annotated[MEALTerm, Tag("meal")]
    | Annotated[NDTerm, Tag("nd")]
    | Annotated[FitNetTerm, Tag("fitnet")]
    | Annotated[ATTerm, Tag("at")]
    | Annotated[ReviewKDTerm, Tag("reviewkd")]
    | Annotated[MiniLMTerm, Tag("minilm")],
    by_kind(PER_EXAMPLE),
]


class PADTerm(TermSection):
    """Prime-aware distillation (Zhang et al. 2020): examples count by how sure the student is."""

    tag: ClassVar[str] = "pad"
    kind: Literal["pad"]
    """The term."""
    of: PerExample | None = None
    """The distance that is weighted: a term that has one for each example, with its keys but without weight
    and schedule; the squared difference of the two features when not given."""
    student_tap: str = "pool"
    """The student's feature, from which the uncertainty is told; averaged where it is a map."""
    teacher_tap: str = "pool"
    """The teacher's feature, which is read when `of` is not given."""
    weighting: Literal["uncertainty", "discard", "softmax", "polynomial"] = "uncertainty"
    """What the weights come from: the learned uncertainty, or (the paper's baselines) the distances of the
    batch, of which the largest are discarded, or weighted by exp(-strength d) or (1 - d / max d)^strength."""
    discard_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    """Part of a batch that `discard` leaves out."""
    strength: float = 1.0
    """How much `softmax` and `polynomial` prefer near examples; below 0 they prefer far ones."""
    warmup_epochs: Annotated[int, Field(ge=0)] = 5
    """First epochs of the training, in which all examples count alike while the uncertainty is learned."""

    @field_validator("of")
    @classmethod
    def _weighted_once(cls, of: PerExample | None) -> PerExample | None:
        for name in TermSection.model_fields:
            if of is not None and getattr(of, name) != type(of).model_fields[name].default:
                raise ValueError(f"{name} belongs to pad itself, not to the term inside")
        return of
