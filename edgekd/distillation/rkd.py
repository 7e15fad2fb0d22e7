"""Relational distillation: the distances and the angles among the examples of a batch.

Formula
    d_ij = ||f_i - f_j|| / its mean over i != j;  a_ijk = cosine of the angle at j between f_i and f_k
    L = w_d mean_ij h(d_ij of the student - of the teacher) + w_a mean_ijk h(a_ijk of the student - ...)
    h(x) = x^2 / 2 where |x| < 1, else |x| - 1/2; the means are over all B^2 pairs and B^3 triples.
Source
    Park et al., "Relational Knowledge Distillation", CVPR 2019, arXiv 1904.05068.
Shapes
    features (B, C) of student and teacher, of any widths and floating dtypes; maps and tokens are averaged
    over their positions; computed in fp32.
    Angles take B^2 (C + B) numbers a network: 8 MB at B = 64, C = 256. More than 16 million of them are made
    in parts and again in the backward pass, so that 64 MB a network suffice.
Defaults
    CIFAR-100, all families: 1.0 CE + 1.0 RKD on the pooled features, w_d = 25, w_a = 50.
Traps
    Distances are those of the differences: out of the products f_i . f_j they would lose their digits where
    examples lie close, and the root of a zero on the diagonal would have a gradient without bound.
    Examples closer than 1/1000 of the mean distance have no direction from each other: their angles are
    taken as a right one, without a gradient. The authors' code has a bound of 1e-12 there.
    Fewer than 3 examples have no relation that could differ.
"""

from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from edgekd.distillation.batch_relations import BatchRelations
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.documents.terms.features import RKDTerm

_MOST_AT_ONCE = 2**24
"""Numbers of one network's angles that are held at once."""
_CLOSE = 1e-3
"""Part of the mean distance below which two examples have no direction from each other."""


def distance_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Smooth L1 of the relative distances, a scalar.

    Args:
        student_BD: (B, D), float32 or float64.
        teacher_BD: (B, D'), the same dtype; receives no gradient.
    """
    return F.smooth_l1_loss(_relative_distances(student_BD), _relative_distances(teacher_BD.detach()))


def angle_loss(student_BD: Tensor, teacher_BD: Tensor, *, at_once: int = _MOST_AT_ONCE) -> Tensor:
    """Smooth L1 of the cosines of the angles in all triangles, a scalar.

    Args:
        student_BD: (B, D), float32 or float64.
        teacher_BD: (B, D'), the same dtype; receives no gradient.
        at_once: numbers to be held at once, of one network; at least those of one vertex are.
    """
    count, width = len(student_BD), max(student_BD.shape[1], teacher_BD.shape[1])
    vertices = max(1, at_once // (count * (width + count)))
    sum_over = partial(_angle_sum, student_BD, teacher_BD.detach())
    if vertices >= count:
        return sum_over(0, count) / count**3
    bounds = [(first, min(first + vertices, count)) for first in range(0, count, vertices)]
    parts = [checkpoint(sum_over, *each, use_reentrant=False, preserve_rng_state=False) for each in bounds]
    return torch.stack(parts).sum() / count**3


class RKD(BatchRelations):
    """Distances and angles within the batch."""

    smallest_batch = 3

    def __init__(self, section: RKDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist."""
        super().__init__(section, setting)
        self.section = section

    def forward(self, step: Step) -> Tensor:
        """Weighted sum of `distance_loss` and `angle_loss`."""
        section = self.section
        student_BD, teacher_BD = self.vectors(step)
        distances = section.distance_weight * distance_loss(student_BD, teacher_BD)
        if not section.angle_weight:
            return distances
        return distances + section.angle_weight * angle_loss(student_BD, teacher_BD)


def _distances(rows_BD: Tensor) -> Tensor:
    """(B, B); the gradient of a distance of zero is zero."""
    return torch.cdist(rows_BD, rows_BD, compute_mode="donot_use_mm_for_euclid_dist")


def _relative_distances(rows_BD: Tensor) -> Tensor:
    """(B, B), with a mean of 1 over the pairs; zero where all examples coincide."""
    distances_BB = _distances(rows_BD)
    mean = _mean(distances_BB)
    return distances_BB / torch.where(mean > 0, mean, 1.0)


def _mean(distances_BB: Tensor) -> Tensor:
    """Over the pairs of different examples."""
    return distances_BB.sum() / (len(distances_BB) * (len(distances_BB) - 1))


def _angle_sum(student_BD: Tensor, teacher_BD: Tensor, first: int, last: int) -> Tensor:
    """Over the triangles whose vertex is one of the examples from `first` up to `last`."""
    student_VBB, teacher_VBB = (
        _cosines(_directions(rows_BD, first, last)) for rows_BD in (student_BD, teacher_BD)
    )
    return F.smooth_l1_loss(student_VBB, teacher_VBB, reduction="sum")


def _directions(rows_BD: Tensor, first: int, last: int) -> Tensor:
    """(V, B, D): of length 1, from each of V vertices to each example; zero to those that are close."""
    distances_BB = _distances(rows_BD)
    close_VB = (distances_BB <= _CLOSE * _mean(distances_BB))[first:last]
    inverse_VB = torch.where(close_VB, 0.0, 1 / torch.where(close_VB, 1.0, distances_BB[first:last]))
    return (rows_BD.unsqueeze(0) - rows_BD[first:last].unsqueeze(1)) * inverse_VB.unsqueeze(2)


def _cosines(directions_VBD: Tensor) -> Tensor:
    """(V, B, B)."""
    return torch.bmm(directions_VBD, directions_VBD.transpose(1, 2))
