"""Similarity-preserving distillation: which examples of a batch activate a network alike.

Formula
    G = Q Q^T, Q the flattened features of a batch, (B, size); each row of G brought to length 1
    L = sum over pairs of features of ||G_s - G_t||^2 / B^2
Source
    Tung, Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv 1907.09682.
Shapes
    student_taps and teacher_taps: pairs of features (B, ...) of any shapes, floating; computed in fp32.
    B^2 products of the length of a feature, 2 B^2 numbers a pair.
Defaults
    CIFAR-100, all families: 1.0 CE + 3000 SP at the last stage of both networks.
Traps
    The value depends on the batch: the weight is made for 64 examples. It is no mean over examples.
    A deeper pair may be added; the sum then grows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.distillation.features import unit
from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Role, Setting, pair_stages
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import Term
from edgekd.documents.terms.features import SPTerm


def sp_loss(student_B: Tensor, teacher_B: Tensor) -> Tensor:
    """Mean squared difference of the similarities of all pairs of examples, a scalar, float32 or float64.

    Args:
        student_B: (B, ...), any floating dtype.
        teacher_B: (B, ...), of any shape; receives no gradient.
    """
    return (_similarities(student_B) - _similarities(teacher_B.detach())).square().mean()


class SP(Term):
    """Similarities within the batch, over pairs of features."""

    smallest_batch = 2

    def __init__(self, section: SPTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, or the numbers of taps differ."""
        super().__init__()
        teacher = setting.source(TEACHER, wanted_by=section.kind)
        students = _chosen(setting.student, section.student_taps)
        teachers = _chosen(teacher, section.teacher_taps)
        self._taps = pair_stages(setting, teacher, students, teachers, wanted_by=section.kind)
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (tuple(names) for names in zip(*self._taps, strict=True))

    def forward(self, step: Step) -> Tensor:
        """Sum of `sp_loss` over the pairs."""
        teacher = step.sources[TEACHER]
        pairs = [(step.student.feature(one), teacher.feature(other)) for one, other in self._taps]
        return torch.stack([sp_loss(*pair) for pair in pairs]).sum()


def _chosen(role: Role, taps: Sequence[str]) -> tuple[str, ...]:
    return tuple(taps) or role.stages()[-1:]


def _similarities(feature_B: Tensor) -> Tensor:
    rows_BD = widen(feature_B.flatten(1))
    return unit(rows_BD @ rows_BD.T)
