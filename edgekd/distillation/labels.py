"""Cross-entropy with the labels: the part of the objective that needs no teacher.

Formula
    L = -sum_k q_k ln p_s,k, averaged over the labeled examples; q is 1 at the right class and 0 elsewhere.
    With smoothing e, q is 1 - e + e / K at the right class and e / K at every other.
Source
    Szegedy et al., "Rethinking the Inception Architecture for Computer Vision", CVPR 2016, arXiv 1512.00567
    (smoothing).
Shapes
    logits (B, K) of the student, any floating dtype; computed in fp32. Labels (B,), -1 where there is none.
Defaults
    label_weight = 1 without terms is plain training, the control of every claim; 0.1 beside KD. Smoothing 0.
Traps
    The mean is over the labeled examples of the batch, so that its size does not fall with their share.
    Smoothing a teacher's labels erases what it knows of the resemblance of classes, and KD gains less.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.logits import widen
from edgekd.distillation.step import Step
from edgekd.distillation.term import Term
from edgekd.documents.common import UNLABELED as UNLABELED


class Labels(Term):
    """Mean cross-entropy over the labeled examples of a batch, in nats; zero for a batch without any.

    With smoothing e the target of the right class is 1 - e + e / K, that of every other class e / K
    (Szegedy et al., arXiv 1512.00567).
    """

    def __init__(self, smoothing: float = 0.0) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, step: Step) -> Tensor:
        """Cross-entropy of the student's logits on the weak view."""
        logits_BK, labels_B = widen(step.student.logits()), step.labels_B
        total = F.cross_entropy(
            logits_BK, labels_B, label_smoothing=self.smoothing, ignore_index=UNLABELED, reduction="sum"
        )
        return total / (labels_B != UNLABELED).sum().clamp(min=1)
