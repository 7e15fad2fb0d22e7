"""Who teaches: one network, several beside each other, or answers in a file; or nobody.

Formula
    L = sum_i w_i term_i(student, teacher)
    The teacher is made only where some term with a weight reads it. A recipe whose terms all teach the
    student by itself (its own earlier answers, its deeper layers, its labels), or that has no terms, is
    teacher-free: no teacher is trained, exported or reported, and the keys of [teacher] are not used.
Source
    Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets" (PS-KD), ICCV 2021;
    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation" (USKD), ICCV 2023, and the
    other methods whose cards say that they read no teacher.
Shapes
    does not apply
Defaults
    terms = [] with label_weight = 1 trains the student from its labels alone: the control of every claim.
Traps
    One term with a teacher, whatever its weight but 0, brings the teacher and its cost back.
    Quantization-aware distillation goes on without the teacher too: labels and the student's own fp32
    weights remain (self_weight).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import model_validator

from edgekd.documents.base import Section
from edgekd.documents.function import Argument
from edgekd.documents.numbers import NotNegative
from edgekd.documents.training import Training


class TeachingNetwork(Section):
    """A network that teaches; trained as a stage of its own when it has no weights."""

    network: str = "wrn-16-2"
    """A built-in network, `timm:NAME`, or `python:package.module:function`."""
    args: dict[str, Argument] = {}
    """Keyword arguments of the network."""
    weights: Path | None = None
    """A .safetensors file, or a torch file that loads with weights_only=True."""
    untrained: bool = False
    """Leave its weights random (seeded): the control that a trained teacher must beat."""
    training: Training = Training()
    """How to train it; not used when weights are given."""

    @model_validator(mode="after")
    def _random_or_given(self) -> TeachingNetwork:
        if self.untrained and self.weights is not None:
            raise ValueError("untrained = true and weights exclude each other")
        return self


class Member(TeachingNetwork):
    """A further network of the ensemble that teaches."""


class Teacher(TeachingNetwork):
    """Who teaches: a network, with `members` an ensemble, with `answers` a file."""

    members: tuple[Member, ...] = ()
    """Further networks that teach together with this one."""
    combine: Literal["mean", "weighted", "nearest"] = "mean"
    """Their answer: the mean of the probabilities, a mean weighted by how well each network's features fit
    the labels, or the best fitting network's alone."""
    power: NotNegative = 1.0
    """What the fit is raised to before `weighted` normalizes it: 0 is the mean, a large one the nearest."""
    answers: Path | None = None
    """A .npz file of a black-box teacher's answers to the rows of the training file, instead of a network."""

    @model_validator(mode="after")
    def _one_kind(self) -> Teacher:
        if self.answers is not None and (self.members or self.untrained or self.weights is not None):
            raise ValueError("answers take the place of a network: leave out weights, untrained and members")
        if self.combine != "mean" and not self.members:
            raise ValueError(f"combine = '{self.combine}' needs members to combine")
        return self

    @property
    def networks(self) -> tuple[TeachingNetwork, ...]:
        """The networks that teach, the main one first; none where a file of answers does."""
        return () if self.answers is not None else (self, *self.members)
