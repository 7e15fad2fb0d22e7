"""The class of the label against the others: what the terms that treat it apart (DKD, NKD, USKD) share.

All in logarithms and without a mask of large negative logits, so that nothing becomes infinite however sure a
network is.
Axes: B examples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Split:
    """Log-probabilities, taken apart at the class of each example's label."""

    target_B: Tensor
    """ln p_y, (B,)."""
    rest_B: Tensor
    """ln(1 - p_y), (B,), from the other classes rather than from p_y, which rounds to 1."""
    others_BK: Tensor
    """ln(p_k / (1 - p_y)), (B, K): the distribution over the other classes; zero at the label."""
    is_target_BK: Tensor
    """Where the label is, (B, K), bool."""


def split_at(log_BK: Tensor, labels_B: Tensor) -> Split:
    """Take log-probabilities apart at the labels.

    Args:
        log_BK: (B, K) with K >= 2, float32 or float64, finite.
        labels_B: (B,), int64, each a class.
    """
    classes_K = torch.arange(log_BK.shape[1], device=log_BK.device)
    is_target_BK = labels_B[:, None] == classes_K
    target_B = log_BK.gather(1, labels_B[:, None]).squeeze(1)
    rest_B = log_BK.masked_fill(is_target_BK, -torch.inf).logsumexp(dim=1)
    others_BK = (log_BK - rest_B[:, None]).masked_fill(is_target_BK, 0.0)
    return Split(target_B, rest_B, others_BK, is_target_BK)
