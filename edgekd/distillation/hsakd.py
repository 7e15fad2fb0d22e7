"""Hierarchical self-supervision augmented knowledge distillation: class and transformation at every stage.

Formula
    q_l: softmax over the 4K joint labels (class y, transformation r) of an auxiliary classifier at stage l.
    Teacher's classifiers, before the student, the teacher frozen: sum_l CE(q_l, (y, r)).
    L = w_aux sum_l T^2 KL(q_l^t || q_l^s) + w_logits T^2 KL(p_t || p_s),
    p the networks' own softmax; every softmax at T, every KL averaged over the rows of all four views.
Source
    Yang, An, Cai, Xu, "Hierarchical Self-supervised Augmented Knowledge Distillation", IJCAI 2021,
    arXiv 2107.13715.
Shapes
    logits (4B, K) and features of the stages (4B, C, X), view after view, any floating dtype; losses in fp32,
    classifiers in the features' precision. X: (H, W), L, or none.
Defaults
    CIFAR-100, all families: label_weight 1, HSAKD of weight 1 with T = 3 and both factors 1, without KD: the
    second summand is KD already. Classifiers: 100 epochs, a tenth of the rate from epochs 30, 60 and 90.
Traps
    Networks with different numbers of stages: name as many student_taps as teacher_taps.
    Our classifiers are small, one 3x3 convolution a later stage and one more, of 128 channels at most; the
    published ones repeat the network's residual blocks. The published figures with * train the teacher and
    its classifiers together, which also makes a better teacher; here the teacher is frozen.
    The classifiers' best epoch on the validation split is kept, not their last one.
    The published MobileNetV2 is wider than that of the other papers.
    Both networks see four times as many rows; batch statistics of the student are over all of them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.auxiliary import auxiliary_classifiers, stage_features
from edgekd.distillation.frozen import Frozen, HeadTerm, load_head
from edgekd.distillation.joint import TURNS, joint_cross_entropy
from edgekd.distillation.kd import kd_rows
from edgekd.distillation.setting import Setting, pair_stages
from edgekd.distillation.step import TEACHER, Answer, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.pretext import HSAKDTerm


def mean_over_views(rows_R: Tensor) -> Tensor:
    """Values of the rows of four views (4B,) -> of the examples (B,)."""
    return torch.unflatten(rows_R, 0, (len(TURNS), -1)).mean(dim=0)


class HSAKD(RowTerm):
    """Soft targets between auxiliary classifiers, and between the networks, on all four views."""

    def __init__(self, section: HSAKDTerm, setting: Setting) -> None:
        """Raises UsageError: stages cannot be paired, or the teacher's classifiers were not trained."""
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), TURNS
        if section.needs_head:
            self._add_classifiers(section, setting)

    def _add_classifiers(self, section: HSAKDTerm, setting: Setting) -> None:
        kind, classes = section.kind, setting.num_classes
        teacher = setting.source(TEACHER, wanted_by=kind)
        pairs = pair_stages(setting, teacher, section.student_taps, section.teacher_taps, wanted_by=kind)
        self.student_taps, self.source_taps = (tuple(taps) for taps in zip(*pairs, strict=True))
        self.student_head = auxiliary_classifiers(setting.student, self.student_taps, classes, wanted_by=kind)
        teacher_head = auxiliary_classifiers(teacher, self.source_taps, classes, wanted_by=kind)
        load_head(teacher_head, setting, wanted_by=kind)
        self.teacher_head = Frozen(teacher_head)

    def rows(self, step: Step) -> Tensor:
        """The weighted sum of both losses of each example; one without a weight is not computed."""
        student, teacher = step.student.of(*TURNS), step.sources[TEACHER].of(*TURNS)
        rows_R = student.logits_RK.new_zeros(())
        if self.section.auxiliary_weight:
            rows_R = self.section.auxiliary_weight * self._auxiliary_rows(student, teacher)
        if self.section.logits_weight:
            rows_R = rows_R + self.section.logits_weight * self._rows(student.logits_RK, teacher.logits_RK)
        return mean_over_views(rows_R)

    def _auxiliary_rows(self, student: Answer, teacher: Answer) -> Tensor:
        own = self.student_head(stage_features(student, self.student_taps))
        others = self.teacher_head(stage_features(teacher, self.source_taps))
        rows = [self._rows(one_RJ, other_RJ) for one_RJ, other_RJ in zip(own, others, strict=True)]
        return torch.stack(rows).sum(dim=0)

    def _rows(self, student_RK: Tensor, teacher_RK: Tensor) -> Tensor:
        section = self.section
        return kd_rows(
            student_RK, teacher_RK, temperature=section.temperature, standardize=section.standardize
        )


class HSAKDHead(HeadTerm):
    """The teacher's auxiliary classifiers learn class and transformation."""

    def __init__(self, section: HSAKDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist. The setting's student is the frozen teacher."""
        super().__init__()
        self.views, self.student_taps = TURNS, section.teacher_taps or setting.student.stages()
        self.head = auxiliary_classifiers(
            setting.student, self.student_taps, setting.num_classes, wanted_by=section.kind
        )

    def forward(self, step: Step) -> Tensor:
        """Cross-entropy with the joint labels, summed over the stages, averaged over the rows."""
        logits = self.head(stage_features(step.student, self.student_taps))
        return torch.stack([joint_cross_entropy(logits_RJ, step.labels_B) for logits_RJ in logits]).sum()
