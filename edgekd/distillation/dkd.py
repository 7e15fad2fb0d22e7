"""Decoupled knowledge distillation: the label's class against the rest, and the rest among themselves.

Formula
    b = (p_y, 1 - p_y);  q_k = p_k / (1 - p_y) over the classes k other than the label y;  p = softmax(z / T)
    L = alpha T^2 KL(b_t || b_s) + beta T^2 KL(q_t || q_s), averaged over examples.
    Plain KD is alpha = 1 with (1 - p_y) of the teacher in the place of beta.
    With standardize, z is replaced by (z - mean) / deviation over the classes of each example.
Source
    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv 2203.08679.
    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024 (standardize).
Shapes
    logits (B, K) of student and teacher, K >= 2, any floating dtype; computed in fp32. labels (B,).
Defaults
    CIFAR-100: label_weight 1, weight 1, alpha 1, T 4, ramp_epochs 20 (of 240), weight decay 5e-4. beta by
    pair: 2 for resnet56 -> resnet20 and resnet110 -> resnet32; 6 for vgg13 and for WRN to WRN; 8 for
    resnet32x4, for resnet50 -> MobileNetV2 and for wrn40-2 -> ShuffleNetV1.
    ImageNet: T 1, alpha 0.5 or 1 (makes no difference), ramp_epochs 1, beta 0.5 for resnet34 -> resnet18 and
    2 for resnet50 -> MobileNetV1.
    Standardized, as the released runner sets it (perhaps by mistake: beta from the raised alpha): alpha 9,
    beta 81, T 4.
Traps
    beta is tuned by pair: one that is too high for a student spoils it. Shorten the ramp of a short training.
    The authors hide the label by -1000 on the scaled logits and take the logarithm of a softmax that may be
    zero; both break for very sure teachers and in fp16. Here everything stays in logarithms.
    With two classes the second part is zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.logits import kl_rows, log_probabilities
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.target import Split, split_at
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.logits import DKDTerm


def dkd_rows(
    student_logits_BK: Tensor,
    teacher_logits_BK: Tensor,
    labels_B: Tensor,
    *,
    alpha: float,
    beta: float,
    temperature: float,
    standardize: bool = False,
) -> Tensor:
    """Decoupled loss of each example; zero where the student equals the teacher up to a constant.

    Args:
        student_logits_BK: (B, K), any floating dtype.
        teacher_logits_BK: (B, K), any floating dtype; receives no gradient.
        labels_B: (B,), int64.
        alpha: factor of the divergence between (p_y, 1 - p_y).
        beta: factor of the divergence between the distributions over the other classes.
        temperature: T > 0, of all softmaxes.
        standardize: bring each row of both to mean 0 and deviation 1 first.

    Returns:
        (B,), float32 (float64 for float64 logits), in nats.
    """
    student_BK = log_probabilities(student_logits_BK, temperature, standardize=standardize)
    teacher_BK = log_probabilities(teacher_logits_BK.detach(), temperature, standardize=standardize)
    student, teacher = split_at(student_BK, labels_B), split_at(teacher_BK, labels_B)
    target_B = kl_rows(_binary(student), _binary(teacher))
    others_B = kl_rows(student.others_BK, teacher.others_BK)
    return temperature**2 * (alpha * target_B + beta * others_B)


def _binary(split: Split) -> Tensor:
    """(ln p_y, ln(1 - p_y)) of each example, (B, 2)."""
    return torch.stack([split.target_B, split.rest_B], dim=1)


class DKD(RowTerm):
    """Decoupled soft targets from the teacher."""

    reads_labels = True

    def __init__(self, section: DKDTerm, setting: Setting) -> None:
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), (section.view,)

    def rows(self, step: Step) -> Tensor:
        """`dkd_rows` of the student against the teacher."""
        section = self.section
        return dkd_rows(
            step.student.logits(section.view),
            step.sources[TEACHER].logits(section.view),
            step.labels_B,
            alpha=section.alpha,
            beta=section.beta,
            temperature=section.temperature,
            standardize=section.standardize,
        )
