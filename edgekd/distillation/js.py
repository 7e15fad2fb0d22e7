"""Jensen-Shannon divergence to the teacher, without labels.

Formula
    p = softmax(z / T);  m = (p_t + p_s) / 2
    L = T^2 (KL(p_t || m) + KL(p_s || m)) / 2, averaged over examples.
    With standardize, z is replaced by (z - mean) / deviation over the classes of each example.
Source
    Cui et al., "Beyond Self-Supervision: A Simple Yet Effective Network Distillation Alternative to Improve
    Backbones" (SSLD), arXiv 2103.05959.
Shapes
    logits (B, K) of student and teacher, any floating dtype; computed in fp32. At most T^2 ln 2.
Defaults
    All families: label_weight 0, weight 1, T = 1, label smoothing off; labeled and unlabeled examples alike
    (task.unlabeled). A last short training with labels, at 1 % of the learning rate, is part of the recipe.
Traps
    The value is bounded, so that its gradient is smaller than that of KD: raise the weight or train longer.
    An unlabeled pool that holds test images is counted and refused.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.logits import kl_rows, log_probabilities
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms import JSTerm


def js_rows(
    student_logits_BK: Tensor,
    teacher_logits_BK: Tensor,
    *,
    temperature: float = 1.0,
    standardize: bool = False,
) -> Tensor:
    """Jensen-Shannon divergence of each example, (B,), float32 or float64, in nats, times T^2.

    Args:
        student_logits_BK: (B, K), any floating dtype.
        teacher_logits_BK: (B, K), any floating dtype; receives no gradient.
        temperature: T > 0, of both softmaxes.
        standardize: bring each row of both to mean 0 and deviation 1 first.
    """
    student_BK = log_probabilities(student_logits_BK, temperature, standardize=standardize)
    teacher_BK = log_probabilities(teacher_logits_BK.detach(), temperature, standardize=standardize)
    middle_BK = torch.logaddexp(student_BK, teacher_BK) - torch.log(student_BK.new_tensor(2.0))
    both_B = kl_rows(middle_BK, teacher_BK) + kl_rows(middle_BK, student_BK)
    return temperature**2 * both_B / 2


class JS(RowTerm):
    """Jensen-Shannon divergence to the teacher."""

    def __init__(self, section: JSTerm, setting: Setting) -> None:
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), (section.view,)

    def rows(self, step: Step) -> Tensor:
        """`js_rows` of the student against the teacher."""
        section = self.section
        return js_rows(
            step.student.logits(section.view),
            step.sources[TEACHER].logits(section.view),
            temperature=section.temperature,
            standardize=section.standardize,
        )
