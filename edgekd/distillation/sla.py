"""Self-supervised label augmentation with self-distillation: one joint classifier, without a teacher.

Formula
    J: joint logits (class y, transformation r), linear in the student's pooled feature.
    a(x) = mean_r J(x turned by r)[., r], the aggregated prediction; z the student's own logits.
    L = w_joint CE(J, (y, r)) + w_agg T^2 KL(softmax(sg[a] / T) || softmax(z / T)),
    the first averaged over the rows of all four views, the second over the plain examples.
Source
    Lee, Hwang, Shin, "Self-supervised Label Augmentation via Input Transformations", ICML 2020,
    arXiv 1910.05872.
Shapes
    logits (4B, K) and pooled feature (4B, C) of the student, view after view, any floating dtype; losses in
    fp32.
Defaults
    CIFAR-100: label_weight 1, SLA of weight 1, T = 1. Data sets as large as ImageNet: joint_weight 4.
Traps
    The student that ships answers from z, with one forward pass; the aggregated prediction needs four.
    An example without a label learns from the aggregated prediction alone.
    The student sees four times as many rows; its batch statistics are over all of them.
"""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.joint import TURNS, aggregated_logits, joint_cross_entropy
from edgekd.distillation.kd import kd_rows
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.distillation.term import Term
from edgekd.documents.terms.pretext import SLATerm


class SLA(Term):
    """Class and transformation from one linear head, and what their aggregate says of the plain example."""

    def __init__(self, section: SLATerm, setting: Setting) -> None:
        """Raises UsageError: the tap does not exist."""
        super().__init__()
        self.section = section
        self.views, self.student_taps = TURNS, (section.student_tap,)
        self._feature = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
        self.head = Head(nn.Linear(self._feature.width, len(TURNS) * setting.num_classes))

    def forward(self, step: Step) -> Tensor:
        """The weighted sum of both losses."""
        section = self.section
        joint_RJ = self.head(self._feature.mean(step.student.of(*TURNS).features[section.student_tap]))
        aggregate_BK = aggregated_logits(joint_RJ)
        rows_B = kd_rows(
            step.student.logits(),
            aggregate_BK,
            temperature=section.temperature,
            standardize=section.standardize,
        )
        joint = joint_cross_entropy(joint_RJ, step.labels_B)
        return section.joint_weight * joint + section.aggregate_weight * rows_B.mean()
