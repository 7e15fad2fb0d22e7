"""FitNet hints: a feature of the student regresses one of the teacher.

Formula
    L = ||r(F_s) - F_t||^2 / size of F_t, averaged over examples.
    r is a 1x1 convolution (a linear map of vectors and tokens) with batch norm where the widths differ, else
    nothing; where the sizes differ, the larger map is averaged down to the smaller first.
Source
    Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, arXiv 1412.6550.
    Tian et al., "Contrastive Representation Distillation", ICLR 2020 (the form in one stage, and its weight).
Shapes
    student_tap and teacher_tap: maps (B, C, H, W) or (B, C, L), tokens (B, T, C) with the same T, or vectors
    (B, C); any floating dtype, any widths. The difference is taken in fp32.
Defaults
    CIFAR-100, all families: 1.0 CE + 100 FitNet at stage2 of both networks.
Traps
    The paper trains up to the hint first and the rest afterwards; here, as in the comparisons since CRD, hint
    and labels are learned at once. We end r without the ReLU of those comparisons, so that a hint may be
    negative, and do not enlarge a small map by a transposed convolution.
    Alone it stays below KD in nearly every published pair, and hurts where the architectures differ much.
    With batch norm in r an example's value depends on its batch.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.distillation.features import CONVOLUTIONS, NORMS, Pair, pair_of, same_size
from edgekd.distillation.head import Head
from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.features import FitNetTerm


def fitnet_rows(student_BCX: Tensor, teacher_BCX: Tensor) -> Tensor:
    """Mean squared difference of each example, (B,), float32 or float64.

    Args:
        student_BCX: (B, C, ...), any floating dtype.
        teacher_BCX: (B, C, ...), of the same shape; receives no gradient.
    """
    difference_BCX = widen(student_BCX) - widen(teacher_BCX.detach())
    return difference_BCX.square().flatten(1).mean(dim=1)


class FitNet(RowTerm):
    """A hint of the teacher for one feature of the student."""

    def __init__(self, section: FitNetTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, or the features cannot be compared."""
        super().__init__()
        teacher = setting.source(TEACHER, wanted_by=section.kind)
        taps = section.student_tap, teacher, section.teacher_tap
        self._pair = pair_of(setting.student, *taps, wanted_by=section.kind)
        self.regressor = _regressor(self._pair)
        self.smallest_batch = 1 if self.regressor is None else 2
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)

    def rows(self, step: Step) -> Tensor:
        """`fitnet_rows` of the regressed feature."""
        feature_BCX, hint_BCX = self._pair.features(step)
        student_BCX, teacher_BCX = same_size(feature_BCX, hint_BCX)
        if self.regressor is not None:
            student_BCX = self.regressor(student_BCX.to(feature_BCX.dtype))
        return fitnet_rows(student_BCX, teacher_BCX)


def _regressor(pair: Pair) -> Head | None:
    width, wanted, axes = pair.student.channels, pair.teacher.channels, len(pair.teacher.positions)
    if width == wanted:
        return None
    linear = (
        CONVOLUTIONS[axes](width, wanted, 1, bias=False) if axes else nn.Linear(width, wanted, bias=False)
    )
    return Head(linear, NORMS[axes](wanted))
