"""Knowledge distillation by soft targets.

Formula
    L = T^2 KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes, averaged over examples.
    With standardize, z is replaced by (z - mean) / deviation over the classes of each example.
Source
    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531.
    Sun et al., "Logit Standardization in Knowledge Distillation", CVPR 2024 (standardize).
Shapes
    logits (B, K) of student and teacher, any floating dtype; computed in fp32.
Defaults
    CIFAR-100, all families: 0.1 CE + 0.9 KD, T = 4. Standardized: weight 9, T = 2.
    ImageNet: 0.5 CE + 0.9 KD.
Traps
    T^2 keeps the size of the gradient nearly independent of T; without it a higher T silently means less KD.
    The baseline to beat: most feature methods, alone, do not.
"""

from __future__ import annotations

from torch import Tensor

from edgekd.distillation.logits import kl_rows, log_probabilities
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms import KDTerm
from edgekd.documents.views import WEAK


def kd_rows(
    student_logits_BK: Tensor, teacher_logits_BK: Tensor, *, temperature: float, standardize: bool = False
) -> Tensor:
    """Soft-target loss of each example; zero where the student equals the teacher up to a constant.

    Args:
        student_logits_BK: (B, K), any floating dtype.
        teacher_logits_BK: (B, K), any floating dtype; receives no gradient.
        temperature: T > 0, of both softmaxes.
        standardize: bring each row of both to mean 0 and deviation 1 first.

    Returns:
        (B,), float32 (float64 for float64 logits), in nats.
    """
    student_BK = log_probabilities(student_logits_BK, temperature, standardize=standardize)
    teacher_BK = log_probabilities(teacher_logits_BK.detach(), temperature, standardize=standardize)
    return temperature**2 * kl_rows(student_BK, teacher_BK)


class KD(RowTerm):
    """Soft targets from one source."""

    def __init__(
        self, temperature: float, *, source: str = TEACHER, view: str = WEAK, standardize: bool = False
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.standardize = standardize
        self.source, self.view = source, view
        self.sources, self.views = (source,), (view,)

    @classmethod
    def of(cls, section: KDTerm) -> KD:
        """The term of a recipe's section."""
        return cls(section.temperature, view=section.view, standardize=section.standardize)

    def rows(self, step: Step) -> Tensor:
        """`kd_rows` of the student against the source."""
        teacher_BK = step.sources[self.source].logits(self.view)
        student_BK = step.student.logits(self.view)
        return kd_rows(student_BK, teacher_BK, temperature=self.temperature, standardize=self.standardize)
