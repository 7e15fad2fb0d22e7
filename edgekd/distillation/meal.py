"""MEAL V2: soft labels of an ensemble, and optionally a discriminator that the student must deceive.

Formula
    L = - T^2 sum_k p_t[k] ln p_s[k], p = softmax(z / T), averaged over examples; p_t is the mean of the
    probabilities where the teacher is an ensemble. With the discriminator D also
    L_D = [ BCE(D(ln p_s), 0) + BCE(D(ln p_t), 1) ] / 2, which D lowers and the student raises.
    With standardize, z is replaced by (z - mean) / deviation over the classes of each example.
Source
    Shen, Savvides, "MEAL V2: Boosting Vanilla ResNet-50 to 80%+ Top-1 Accuracy on ImageNet without Tricks",
    arXiv 2009.08453.
    Ganin, Lempitsky, "Unsupervised Domain Adaptation by Backpropagation", ICML 2015 (gradient reversal).
Shapes
    logits (B, K) of student and teacher, any floating dtype; computed in fp32.
Defaults
    ImageNet, all families: label_weight 0, weight 1, T 1, no weight decay; a pretrained student at a learning
    rate of 0.01, then 0.001 after about 100 of 180 to 200 epochs, batches of 512; two large teachers.
Traps
    A cross-entropy: at student = teacher its value is the teacher's entropy, its gradient zero. Without
    discriminator it teaches the same as kd at the same T.
    The released code adds L_D without reversing its gradient, so that the student learns to be told apart;
    here the student's gradient of L_D is reversed. The reported gains therefore come from the soft labels.
    D is given log-probabilities, not raw logits: those of an ensemble are not defined, and a constant in all
    logits, which changes no answer, would tell student from teacher. It learns at the student's rate, not at
    1e-4; its layers are the paper's (K/8, K/64, at least 16), but one output and no ReLU behind it.
    With the discriminator the value is a balance of two players: L_D near ln 2 means that D is deceived.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.logits import log_probabilities
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.logits import MEALTerm

_NARROWEST = 16


def meal_rows(student_log_BK: Tensor, teacher_log_BK: Tensor) -> Tensor:
    """Cross-entropy of each example with the teacher's probabilities, (B,), in nats.

    Args:
        student_log_BK: (B, K) log-probabilities, float32 or float64.
        teacher_log_BK: the same of the teacher; no gradient.
    """
    return -(teacher_log_BK.exp() * student_log_BK).sum(dim=1)


def deception_rows(discriminator: nn.Module, student_log_BK: Tensor, teacher_log_BK: Tensor) -> Tensor:
    """How badly the discriminator tells the two apart, for each example, (B,), in nats.

    Its parameters receive the gradient of this, the student the negative of its own.

    Args:
        discriminator: (R, K) -> (R, 1), positive for the teacher.
        student_log_BK: (B, K) log-probabilities, float32 or float64.
        teacher_log_BK: the same of the teacher; no gradient.
    """
    reversed_BK = 2 * student_log_BK.detach() - student_log_BK  # the same value, the opposite gradient
    taken_for_student_B, taken_for_teacher_B = (
        discriminator(torch.cat([reversed_BK, teacher_log_BK])).squeeze(1).chunk(2)
    )
    return (F.softplus(taken_for_student_B) + F.softplus(-taken_for_teacher_B)) / 2


class MEAL(RowTerm):
    """Cross-entropy with the teacher's probabilities, with or without a discriminator."""

    def __init__(self, section: MEALTerm, setting: Setting) -> None:
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), (section.view,)
        self.head = _discriminator(setting.num_classes) if section.discriminator else None

    def rows(self, step: Step) -> Tensor:
        """`meal_rows`, and `deception_rows` where there is a discriminator."""
        student_BK = self._log_probabilities(step.student.logits(self.section.view))
        teacher_BK = self._log_probabilities(step.sources[TEACHER].logits(self.section.view).detach())
        rows_B = self.section.temperature**2 * meal_rows(student_BK, teacher_BK)
        return rows_B if self.head is None else rows_B + deception_rows(self.head, student_BK, teacher_BK)

    def _log_probabilities(self, logits_BK: Tensor) -> Tensor:
        section = self.section
        return log_probabilities(logits_BK, section.temperature, standardize=section.standardize)


def _discriminator(num_classes: int) -> Head:
    """Log-probabilities (R, K) -> (R, 1), the logarithm of the odds that they are the teacher's."""
    first, second = (max(_NARROWEST, num_classes // part) for part in (8, 64))
    return Head(
        nn.Linear(num_classes, first), nn.ReLU(), nn.Linear(first, second), nn.ReLU(), nn.Linear(second, 1)
    )
