"""ND: the student's feature is drawn towards its class's direction, and to a norm not below the teacher's.

Formula
    c_k = mean of the teacher's features over the training examples of class k;  e_k = c_k / |c_k|
    L = 1 - <f_s, e_y> / max(|f_s|, |f_t|), averaged over examples, y the label.
    Where the widths differ, f_s = Linear(Dropout(BatchNorm(f))) of the student's feature f.
Source
    Wang et al., "Improving Knowledge Distillation via Regularizing Feature Norm and Direction", 2023,
    arXiv 2305.17007.
Shapes
    features (B, C_s) and (B, C_t), any floating dtype; maps are averaged over their places; computed in fp32.
    labels (B,). The class means (K, C_t) are kept; the projection is not shipped.
Defaults
    Beside 1.0 CE and KD, DKD, DIST or ReviewKD at its own ramp_epochs 20; this term has no ramp.
    CIFAR-100, SGD at 0.1 (ShuffleNets 0.02), as (weight of KD at T 4, weight of ND): resnet56 -> resnet20
    (1, 2); resnet32x4 -> resnet8x4 (3.5, 2); wrn40-2 -> wrn40-1 (1, 1.5); resnet50 -> MobileNetV2 (3, 0.5);
    resnet32x4 -> ShuffleNetV1 (2.5, 1.5), V2 (4, 0.5). With DIST instead of KD (weights of DIST, ND), in the
    same order: (2, 1), (1.5, 4), (2.5, 3), (7, 1), (2.5, 3), (3, 4).
Traps
    A smaller feature than the teacher's costs as much as a turned one; a larger one costs nothing.
    Not zero at student = teacher: an example's feature does not lie on its class's mean.
    The class means are of the training examples without augmentation, computed once; f_t is of the view.
    Behind a projection the student's own feature is free to turn and to shrink, which it was to unlearn.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.logits import widen
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm, Survey
from edgekd.documents.terms.classes import NDTerm

_CHUNK = 4096
"""Examples whose features are summed at once, in float64."""


def nd_rows(student_BC: Tensor, teacher_BC: Tensor, directions_BC: Tensor) -> Tensor:
    """Norm-and-direction loss of each example, (B,), float32 or float64, in [0, 2].

    Args:
        student_BC: (B, C), any floating dtype.
        teacher_BC: (B, C), any floating dtype; receives no gradient.
        directions_BC: (B, C), float32 or float64, the direction of each example's class, of length 1.
    """
    student_BC, teacher_BC = widen(student_BC), widen(teacher_BC.detach())
    largest_B = torch.maximum(_lengths(student_BC), _lengths(teacher_BC))
    largest_B = torch.where(largest_B > 0, largest_B, 1.0)  # both features are zero: nothing to divide
    return 1 - (student_BC * directions_BC).sum(dim=1) / largest_B


def _lengths(feature_BC: Tensor) -> Tensor:
    lengths_B: Tensor = torch.linalg.vector_norm(feature_BC, dim=1)
    return lengths_B


def class_directions(features_NC: Tensor, labels_N: Tensor, num_classes: int) -> Tensor:
    """Mean feature of each class, scaled to length 1, (K, C) float32; zero for a class without examples.

    Args:
        features_NC: (N, C), floating.
        labels_N: (N,), int64, all labeled.
        num_classes: K.
    """
    total_KC = features_NC.new_zeros(num_classes, features_NC.shape[1], dtype=torch.float64)
    chunks = zip(torch.split(features_NC, _CHUNK), torch.split(labels_N, _CHUNK), strict=True)
    for some_NC, of_N in chunks:
        total_KC.index_add_(0, of_N, some_NC.double())
    return F.normalize(total_KC, dim=1).float()


class ND(RowTerm):
    """Norm and direction of the penultimate feature."""

    reads_labels = True
    directions_KC: Tensor
    """Direction of each class in the teacher's features."""

    def __init__(self, section: NDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist."""
        super().__init__()
        self.section = section
        teacher = setting.source(TEACHER, wanted_by=section.kind)
        self._student = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
        self._teacher = vector_at(teacher, section.teacher_tap, wanted_by=section.kind)
        self.sources, self.views = (TEACHER,), (section.view,)
        self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)
        self.register_buffer("directions_KC", torch.zeros(setting.num_classes, self._teacher.width))
        self.head = _projection(self._student.width, self._teacher.width, section.dropout)
        self.smallest_batch = 1 if self.head is None else 2

    def prepare(self, survey: Survey) -> None:
        """Find the direction of each class."""
        features_NC = self._teacher.mean(survey.features(TEACHER, self.section.teacher_tap))
        num_classes = len(self.directions_KC)
        self.directions_KC.copy_(class_directions(features_NC, survey.labels_N, num_classes))

    def rows(self, step: Step) -> Tensor:
        """`nd_rows` of the student's feature, projected where that is needed."""
        student_BC = self._student.of(step.student, self.section.view)
        teacher_BC = self._teacher.of(step.sources[TEACHER], self.section.view)
        if self.head is not None:
            student_BC = self.head(student_BC)
        return nd_rows(student_BC, teacher_BC, self.directions_KC[step.labels_B])


def _projection(student: int, teacher: int, dropout: float) -> Head | None:
    """The student's feature at the teacher's width; None where it has that already."""
    if student == teacher:
        return None
    return Head(nn.BatchNorm1d(student), nn.Dropout(dropout), nn.Linear(student, teacher))
