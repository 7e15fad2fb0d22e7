"""Probabilistic knowledge transfer: how likely each example takes each other for its neighbor.

Formula
    s_ij = (cosine of f_i and f_j + 1) / 2;  p_ij = s_ij / sum_j s_ij, each at least 1e-7
    L = sum_ij p_ij of the teacher x ln(p_ij of the teacher / p_ij of the student) / B^2
Source
    Passalis, Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer", ECCV 2018,
    arXiv 1803.10837.
Shapes
    features (B, C) of student and teacher, of any widths and floating dtypes; maps and tokens are averaged
    over their positions; computed in fp32.
Defaults
    CIFAR-100, all families: 1.0 CE + 30000 PKT on the pooled features.
Traps
    As in the authors' code an example is its own neighbor too, and the mean is over all B^2 pairs, which
    makes the value small and the weight large. The weight is made for 64 examples.
    The authors add 1e-7 within the logarithm; here that is the least probability, so that the minimum is
    where both networks agree.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.batch_relations import BatchRelations
from edgekd.distillation.features import unit
from edgekd.distillation.step import Step

_LEAST = 1e-7


def pkt_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Divergence of the neighborhoods of a batch, a scalar, in nats / B.

    Args:
        student_BD: (B, D), float32 or float64.
        teacher_BD: (B, D'), the same dtype; receives no gradient.
    """
    student_BB, teacher_BB = _log_neighbors(student_BD), _log_neighbors(teacher_BD.detach())
    return F.kl_div(student_BB, teacher_BB, reduction="none", log_target=True).mean()


class PKT(BatchRelations):
    """Neighborhoods within the batch."""

    smallest_batch = 2

    def forward(self, step: Step) -> Tensor:
        """`pkt_loss` of the pooled features."""
        return pkt_loss(*self.vectors(step))


def _log_neighbors(rows_BD: Tensor) -> Tensor:
    """(B, B): logarithm of the probability that j is taken for the neighbor of i."""
    rows_BD = unit(rows_BD)
    similar_BB = (rows_BD @ rows_BD.T + 1) / 2
    likely_BB = similar_BB / similar_BB.sum(dim=1, keepdim=True)
    return torch.log(likely_BB.clamp(min=_LEAST))
