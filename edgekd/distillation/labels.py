"""Cross-entropy with the labels, optionally smoothed: the part of the objective that needs no teacher."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.logits import widen
from edgekd.distillation.step import Step
from edgekd.distillation.term import Term

UNLABELED = -1
"""Label of an example that has none."""


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
