"""DIST: the student keeps the teacher's relations between classes and between examples, not its values.

Formula
    Y = softmax(z / T), (B, K);  rho = Pearson's correlation
    L = T^2 [ beta (1 - mean_i rho(Y_s[i, :], Y_t[i, :])) + gamma (1 - mean_k rho(Y_s[:, k], Y_t[:, k])) ]
    With standardize, z is replaced by (z - mean) / deviation over the classes of each example.
Source
    Huang et al., "Knowledge Distillation from A Stronger Teacher", NeurIPS 2022, arXiv 2205.10536.
Shapes
    logits (B, K) of student and teacher, any floating dtype; computed in fp32. B >= 3.
Defaults
    label_weight 1, beta 1, gamma 1, T 1, as in the authors' code; keeps gaining with stronger teachers.
    CIFAR-100 at T 4 with ramp_epochs 20 (of 240), in the runs of ND's authors and together with their term:
    weight 2 for resnet56 -> resnet20, 1.5 for resnet32x4 -> resnet8x4, 2.5 for wrn40-2 -> wrn40-1, 7 for
    resnet50 -> MobileNetV2, 2.5 and 3 for resnet32x4 -> ShuffleNetV1 and V2.
Traps
    The factor T^2, taken over from KD, makes T = 4 sixteen times as strong: choose T and weight together.
    The authors add 1e-8 to the product of the norms, which fades classes to which no example of the batch
    gives a probability; here each class counts alike, as in the paper, and student = teacher gives zero.
    A row or column that does not vary (but for rounding) relates to nothing: it counts 1, without gradient.
    Two points correlate by 1 or -1, without gradient: with two classes the first part teaches nothing, nor
    would the second with a batch of two, so that three examples are asked for.
    The second part is taken over the batch: its size matters, and each device sees only its share.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from edgekd.distillation.logits import log_probabilities
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import Term
from edgekd.documents.terms.logits import DISTTerm

_ROUNDINGS = 16.0
"""Deviation, in units of the rounding of one, below which values count as equal."""


def dist_loss(
    student_logits_BK: Tensor,
    teacher_logits_BK: Tensor,
    *,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float = 1.0,
    standardize: bool = False,
) -> Tensor:
    """DIST of a batch; zero where the student equals the teacher up to a constant in each row.

    Args:
        student_logits_BK: (B, K), any floating dtype.
        teacher_logits_BK: (B, K), any floating dtype; receives no gradient.
        beta: factor of the relations between the classes, example by example.
        gamma: factor of the relations between the examples, class by class.
        temperature: T > 0, of both softmaxes.
        standardize: bring each row of both to mean 0 and deviation 1 first.

    Returns:
        A scalar in [0, 2 T^2 (beta + gamma)], float32 (float64 for float64 logits).
    """
    student_BK = log_probabilities(student_logits_BK, temperature, standardize=standardize)
    teacher_BK = log_probabilities(teacher_logits_BK.detach(), temperature, standardize=standardize)
    inter = 1 - correlations(student_BK, teacher_BK).mean()
    intra = 1 - correlations(student_BK.T, teacher_BK.T).mean()
    return temperature**2 * (beta * inter + gamma * intra)


def correlations(a_RN: Tensor, b_RN: Tensor) -> Tensor:
    """Pearson's correlation of exp(a) with exp(b) in each row, (R,); zero where either does not vary."""
    return (_unit(a_RN) * _unit(b_RN)).sum(dim=1)


def _unit(log_RN: Tensor) -> Tensor:
    """Exp of each row, moved to mean 0 and scaled to norm 1; zero, without gradient, for a constant row.

    The correlation knows no scale, so that each row is first brought to a maximum of 1: probabilities may be
    too small for float32.
    """
    value_RN = (log_RN - log_RN.detach().amax(dim=1, keepdim=True)).exp()
    centered_RN = value_RN - value_RN.mean(dim=1, keepdim=True)
    norm_R1: Tensor = torch.linalg.vector_norm(centered_RN, dim=1, keepdim=True)
    rounding = _ROUNDINGS * torch.finfo(log_RN.dtype).eps * math.sqrt(log_RN.shape[1])
    is_constant_R1 = norm_R1 <= rounding
    centered_RN, norm_R1 = (
        centered_RN.masked_fill(is_constant_R1, 0.0),
        norm_R1.masked_fill(is_constant_R1, 1.0),
    )
    return centered_RN / norm_R1


class DIST(Term):
    """Correlation with the teacher, over classes and over the batch."""

    smallest_batch = 3

    def __init__(self, section: DISTTerm, setting: Setting) -> None:
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), (section.view,)

    def forward(self, step: Step) -> Tensor:
        """`dist_loss` of the student against the teacher."""
        section = self.section
        return dist_loss(
            step.student.logits(section.view),
            step.sources[TEACHER].logits(section.view),
            beta=section.beta,
            gamma=section.gamma,
            temperature=section.temperature,
            standardize=section.standardize,
        )
