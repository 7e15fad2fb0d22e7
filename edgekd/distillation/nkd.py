"""NKD: soft label for the right class, and the other classes normalized before they are compared.

Formula
    p = softmax(z);  q_k = softmax(z / T) over the classes k other than the label y, renormalized
    L = - p_t[y] ln p_s[y] - gamma T^2 sum_{k != y} q_t[k] ln q_s[k], averaged over examples.
    With standardize, z is replaced by (z - mean) / deviation over the classes of each example.
Source
    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
    Normalized Loss and Customized Soft Labels", ICCV 2023, arXiv 2303.13005.
Shapes
    logits (B, K) of student and teacher, K >= 2, any floating dtype; computed in fp32. labels (B,).
Defaults
    label_weight 1 (the cross-entropy stays), weight 1.
    ImageNet, CNNs and ViTs: gamma 1.5, T 1. CIFAR-100, resnet34 -> resnet18: gamma 3.5, T 3.
Traps
    A cross-entropy, not a divergence: it does not vanish at student = teacher, and its first part still pulls
    the student to a probability of 1 for the label, only less where the teacher doubts.
    T is of the second part only; the first is taken at T = 1.
    One version of the released code masked no class in the second part.
"""

from __future__ import annotations

from torch import Tensor

from edgekd.distillation.logits import log_probabilities
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.target import split_at
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.logits import NKDTerm


def nkd_rows(
    student_logits_BK: Tensor,
    teacher_logits_BK: Tensor,
    labels_B: Tensor,
    *,
    gamma: float,
    temperature: float,
    standardize: bool = False,
) -> Tensor:
    """Normalized loss of each example, (B,), float32 (float64 for float64 logits), in nats.

    Args:
        student_logits_BK: (B, K), any floating dtype.
        teacher_logits_BK: (B, K), any floating dtype; receives no gradient.
        labels_B: (B,), int64.
        gamma: factor of the part over the other classes.
        temperature: T > 0, of the part over the other classes.
        standardize: bring each row of both to mean 0 and deviation 1 first.
    """

    def at(logits_BK: Tensor, temperature: float) -> Tensor:
        return log_probabilities(logits_BK, temperature, standardize=standardize)

    teacher_logits_BK = teacher_logits_BK.detach()
    student = split_at(at(student_logits_BK, 1.0), labels_B)
    teacher = split_at(at(teacher_logits_BK, 1.0), labels_B)
    soft_student = split_at(at(student_logits_BK, temperature), labels_B)
    soft_teacher = split_at(at(teacher_logits_BK, temperature), labels_B)
    target_B = -teacher.target_B.exp() * student.target_B
    others_B = -(soft_teacher.others_BK.exp() * soft_student.others_BK).sum(dim=1)
    return target_B + gamma * temperature**2 * others_B


class NKD(RowTerm):
    """Normalized soft targets from the teacher."""

    reads_labels = True

    def __init__(self, section: NKDTerm, setting: Setting) -> None:
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), (section.view,)

    def rows(self, step: Step) -> Tensor:
        """`nkd_rows` of the student against the teacher."""
        section = self.section
        return nkd_rows(
            step.student.logits(section.view),
            step.sources[TEACHER].logits(section.view),
            step.labels_B,
            gamma=section.gamma,
            temperature=section.temperature,
            standardize=section.standardize,
        )
