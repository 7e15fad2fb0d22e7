"""Cross-entropy with the labels, optionally smoothed: the part of the objective that needs no teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.step import Step


@dataclass(frozen=True)
class Labels:
    """Mean cross-entropy of a batch, in nats.

    With smoothing e the target of the right class is 1 - e + e / K, that of every other class e / K
    (Szegedy et al., arXiv 1512.00567).
    """

    smoothing: float = 0.0
    sources: tuple[str, ...] = ()

    def __call__(self, step: Step) -> Tensor:
        """Cross-entropy of the student's logits, in fp32 or wider."""
        logits_BK = step.student_logits_BK
        logits_BK = logits_BK.to(torch.promote_types(logits_BK.dtype, torch.float32))
        return F.cross_entropy(logits_BK, step.labels_B, label_smoothing=self.smoothing)
