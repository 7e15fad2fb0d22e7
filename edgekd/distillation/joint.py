"""Joint labels: class and transformation of an example at once, as one of 4K labels.

Label y * 4 + r is class y under transformation r: 0 the weak view, 1 to 3 the pretext views.
Axes: B examples, R = 4B rows, view after view, J = 4K joint labels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.labels import UNLABELED
from edgekd.documents.views import PRETEXT, WEAK

TURNS = (WEAK, *PRETEXT)
"""The four transformations."""


def joint_labels(labels_B: Tensor) -> Tensor:
    """(B,) labels -> (4B,) joint labels of the rows of the four views; an unlabeled example remains one."""
    turns_RB = torch.arange(len(TURNS), device=labels_B.device).unsqueeze(1)
    labels_RB = labels_B * len(TURNS) + turns_RB
    return torch.where(labels_B == UNLABELED, UNLABELED, labels_RB).flatten()


def joint_cross_entropy(logits_RJ: Tensor, labels_B: Tensor) -> Tensor:
    """Mean cross-entropy of the labeled rows with their joint labels; zero without any.

    Args:
        logits_RJ: (4B, 4K), float32 or float64.
        labels_B: (B,), int64.
    """
    total = F.cross_entropy(logits_RJ, joint_labels(labels_B), ignore_index=UNLABELED, reduction="sum")
    return total / (len(TURNS) * (labels_B != UNLABELED).sum().clamp(min=1))


def aggregated_logits(logits_RJ: Tensor) -> Tensor:
    """Class logits (B, K) from joint ones (4B, 4K): mean over the views r of the labels with that r."""
    logits_VBJ = torch.unflatten(logits_RJ, 0, (len(TURNS), -1))
    logits_VBKV = torch.unflatten(logits_VBJ, 2, (-1, len(TURNS)))
    return torch.diagonal(logits_VBKV, dim1=0, dim2=3).mean(dim=-1)
