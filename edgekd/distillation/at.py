"""Attention transfer: where in a map the activity lies.

Formula
    a = the mean over channels of F^2 at each position, as one vector; u = a / ||a||
    L = sum over pairs of maps of ||u_s - u_t||^2 / number of positions, averaged over examples.
    Where the sizes of a pair differ, the larger map F is averaged down to the smaller first.
Source
    Zagoruyko, Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928.
Shapes
    student_taps and teacher_taps: pairs of maps (B, C, H, W) or (B, C, L), or of tokens (B, T, C) with the
    same T; any floating dtype, any widths; computed in fp32.
Defaults
    CIFAR-100, all families: 1.0 CE + 1000 AT over all stages. Networks with other numbers of stages: name the
    taps.
Traps
    The division by the number of positions is that of the authors' code, for which the weight is made; the
    paper's norm is not squared.
    The literature's comparison found it harmful where the architectures differ much (MobileNetV2 students).
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.features import pair_of, same_size, unit
from edgekd.distillation.setting import Setting, pair_stages
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.features import ATTerm
from edgekd.errors import UsageError


def at_rows(student_BCX: Tensor, teacher_BCX: Tensor) -> Tensor:
    """Mean squared difference of the attention maps of each example, (B,), float32 or float64.

    Args:
        student_BCX: (B, C, ...), any floating dtype.
        teacher_BCX: (B, C', ...), as many axes, of any width and size; receives no gradient.
    """
    student_BCX, teacher_BCX = same_size(student_BCX, teacher_BCX.detach())
    difference_BX = _attention(student_BCX) - _attention(teacher_BCX)
    return difference_BX.square().mean(dim=1)


class AT(RowTerm):
    """Attention transfer over pairs of maps."""

    def __init__(self, section: ATTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, is a vector, or cannot be compared with its partner."""
        super().__init__()
        student, teacher = setting.student, setting.source(TEACHER, wanted_by=section.kind)
        chosen = section.student_taps, section.teacher_taps
        taps = pair_stages(setting, teacher, *chosen, wanted_by=section.kind)
        self._pairs = [pair_of(student, one, teacher, other, wanted_by=section.kind) for one, other in taps]
        for pair in self._pairs:
            if not pair.student.positions:
                raise UsageError(
                    f"reads maps, and '{pair.student_tap}' of the student is a vector",
                    where=f"term {section.kind}",
                    hint="name taps before the pooling",
                )
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (tuple(names) for names in zip(*taps, strict=True))

    def rows(self, step: Step) -> Tensor:
        """Sum of `at_rows` over the pairs."""
        return torch.stack([at_rows(*pair.features(step)) for pair in self._pairs]).sum(dim=0)


def _attention(x_BCX: Tensor) -> Tensor:
    """Activity of each position, (B, number of positions), of length 1."""
    return unit(x_BCX.square().mean(dim=1).flatten(1))
