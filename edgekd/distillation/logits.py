"""What the terms that compare logits share: arithmetic in fp32 or wider, temperatures, standardization.

Axes: B examples, K classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

_STANDARDIZING_EPS = 1e-7


def widen(values: Tensor) -> Tensor:
    """In float32, or float64 if it was: under bf16 or fp16 logarithms and squares lose too much."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def standardized(logits_BK: Tensor) -> Tensor:
    """Each row at mean 0 and deviation 1 (Sun et al., "Logit Standardization in KD", CVPR 2024).

    The deviation is that over the K classes with K - 1 in the denominator, as in the authors' code.
    """
    logits_BK = widen(logits_BK)
    mean_B1 = logits_BK.mean(dim=1, keepdim=True)
    return (logits_BK - mean_B1) / (logits_BK.std(dim=1, keepdim=True) + _STANDARDIZING_EPS)


def log_probabilities(logits_BK: Tensor, temperature: float, *, standardize: bool = False) -> Tensor:
    """Log softmax(logits / T) of each row, (B, K); of standardized logits where that is asked for."""
    logits_BK = standardized(logits_BK) if standardize else widen(logits_BK)
    return F.log_softmax(logits_BK / temperature, dim=1)


def kl_rows(student_log_BK: Tensor, teacher_log_BK: Tensor) -> Tensor:
    """KL(teacher || student) of each row from log-probabilities, (B,), in nats."""
    return F.kl_div(student_log_BK, teacher_log_BK, reduction="none", log_target=True).sum(dim=1)
