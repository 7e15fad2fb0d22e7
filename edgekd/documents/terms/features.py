"""Sections of the terms that compare features: maps, vectors and the relations among them."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from edgekd.documents.numbers import NotNegative
from edgekd.documents.terms.base import TermSection

Heads = Annotated[int, Field(ge=1)]


class StagesSection(TermSection):
    """What the terms that compare several pairs of maps share."""

    student_taps: tuple[str, ...] = ()
    """The student's maps; all its stages when not given."""
    teacher_taps: tuple[str, ...] = ()
    """The teacher's maps, paired with the student's one to one; all its stages when not given."""


class PooledSection(TermSection):
    """What the terms that compare how the vectors of a batch lie share."""

    student_tap: str = "pool"
    """The student's feature; averaged over its positions where it is a map."""
    teacher_tap: str = "pool"
    """The teacher's feature, of any width; averaged over its positions where it is a map."""


class FitNetTerm(TermSection):
    """FitNet hints (Romero et al. 2015)."""

    tag: ClassVar[str] = "fitnet"
    kind: Literal["fitnet"]
    """The term."""
    weight: NotNegative = 100.0
    """Its factor in the objective."""
    student_tap: str = "stage2"
    """The student's feature that is guided."""
    teacher_tap: str = "stage2"
    """The teacher's feature that is the hint."""


class ATTerm(StagesSection):
    """Attention transfer (Zagoruyko and Komodakis 2017)."""

    tag: ClassVar[str] = "at"
    kind: Literal["at"]
    """The term."""
    weight: NotNegative = 1000.0
    """Its factor in the objective."""


class SPTerm(TermSection):
    """Similarity-preserving distillation (Tung and Mori 2019)."""

    tag: ClassVar[str] = "sp"
    kind: Literal["sp"]
    """The term."""
    weight: NotNegative = 3000.0
    """Its factor in the objective."""
    student_taps: tuple[str, ...] = ()
    """The student's features, of any shape; its last stage when not given."""
    teacher_taps: tuple[str, ...] = ()
    """The teacher's features, paired with the student's one to one; its last stage when not given."""


class RKDTerm(PooledSection):
    """Relational distillation: distances and angles within a batch (Park et al. 2019)."""

    tag: ClassVar[str] = "rkd"
    kind: Literal["rkd"]
    """The term."""
    distance_weight: NotNegative = 25.0
    """Factor of the distances within the term."""
    angle_weight: NotNegative = 50.0
    """Factor of the angles within the term."""


class PKTTerm(PooledSection):
    """Probabilistic knowledge transfer (Passalis and Tefas 2018)."""

    tag: ClassVar[str] = "pkt"
    kind: Literal["pkt"]
    """The term."""
    weight: NotNegative = 30_000.0
    """Its factor in the objective."""


class ReviewKDTerm(TermSection):
    """ReviewKD: deeper stages review shallower ones (Chen et al. 2021)."""

    tag: ClassVar[str] = "reviewkd"
    kind: Literal["reviewkd"]
    """The term."""
    weight: NotNegative = 5.0
    """Its factor in the objective."""
    ramp_epochs: NotNegative = 20.0
    """Epochs, from its first one, over which its weight grows linearly to the full value."""
    student_taps: tuple[str, ...] = ()
    """The student's maps, from the shallow to the deep; all its stages and `pool` when not given."""
    teacher_taps: tuple[str, ...] = ()
    """The teacher's maps, paired with the student's; all its stages and `pool` when not given."""


class MiniLMTerm(TermSection):
    """Relations of the last attention layer (MiniLM, Wang et al. 2020)."""

    tag: ClassVar[str] = "minilm"
    kind: Literal["minilm"]
    """The term."""
    student_tap: str = "qkv"
    """The student's queries, keys and values in one: (tokens, 3 x heads x width)."""
    teacher_tap: str = "qkv"
    """The same of the teacher."""
    student_heads: Heads | None = None
    """Heads of the student's attention; read from the network, where it says, when not given."""
    teacher_heads: Heads | None = None
    """Heads of the teacher's attention; read from the network, where it says, when not given."""
