"""Prime-aware distillation: examples weighted by a learned uncertainty.

Formula
    The teacher's feature is taken for a draw around the student's with variance exp(v), which the student
    tells too:  v = BN(W f_s + b), f_s its pooled feature, v within [-6, 6].
        L = mean over examples and dimensions of (f_t - f_s)^2 exp(-v) + v
    With `of`, d the value of another term for each example:  L = mean over examples of d exp(-v) + v,
    with one v an example. For a given distance the best v is its logarithm, and L is then 1 + v.
    The paper's baselines weight by the distances d of the batch themselves; the weights have mean 1:
        discard     0 for the given part of the batch with the largest d, equal for the rest
        softmax     ~ exp(-g d)
        polynomial  ~ (1 - d / max d)^g for g >= 0, (d / max d)^-g for g < 0, which prefers far examples
Source
    Zhang et al., "Prime-Aware Adaptive Distillation", ECCV 2020, arXiv 2008.01458. No code of the authors is
    public: the layers follow a port to which they contributed; the baselines are stated after the text.
Shapes
    features (B, C) of student and teacher, any floating dtype, maps averaged over their positions; a linear
    map brings the student's to the teacher's width where they differ. Distances and variances in fp32.
Defaults
    ImageNet, ResNet34 -> ResNet18: 1.0 CE + 1.0 PAD, from a student distilled by the plain distance, for 30
    epochs at a constant learning rate of 0.002. Elsewhere: a warm-up first, without which the paper reports
    less.
Traps
    The loss may be negative: only its fall says something.
    In the warm-up its value and the student's gradient are those of the plain distance; the head of the
    uncertainty learns from both without pulling at the student.
    After it, the uncertainty pulls at the student's feature too, as in the port.
    The bounds of v are ours: they replace a constant in the denominator, and keep an example's weight
    exp(-v) between 1/403 and 403. A distance far outside of them is weighted by its bound.
    The weight of a corrupted target falls as far as the student can tell that it is one.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.logits import widen
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm, Survey
from edgekd.documents.terms.weighting import PADTerm

_LIMIT = 6.0
"""Largest absolute value of a log-variance."""


def pad_rows(distances_BD: Tensor, log_variances_BD: Tensor) -> Tensor:
    """Distances under a learned variance, the mean over D for each example; least where v = ln d.

    Args:
        distances_BD: (B, D), float32 or float64, at least 0.
        log_variances_BD: (B, D), v.

    Returns:
        (B,); negative for a sure and right student.
    """
    return (distances_BD * torch.exp(-log_variances_BD) + log_variances_BD).mean(dim=1)


def discarding_weights(distances_B: Tensor, fraction: float) -> Tensor:
    """Weights (B,) of mean 1: 0 for the farthest floor(fraction B) examples, equal for the rest."""
    count = len(distances_B)
    kept = count - math.floor(fraction * count)
    rank_B = torch.argsort(torch.argsort(distances_B, stable=True))
    return (rank_B < kept).to(distances_B.dtype) * (count / kept)


def softmax_weights(distances_B: Tensor, strength: float) -> Tensor:
    """Weights (B,) of mean 1 in proportion to exp(-strength d)."""
    return len(distances_B) * torch.softmax(-strength * distances_B, dim=0)


def polynomial_weights(distances_B: Tensor, strength: float) -> Tensor:
    """Weights (B,) of mean 1 by a power of the distances over the largest; equal where all distances are."""
    part_B = distances_B / distances_B.max().clamp(min=torch.finfo(distances_B.dtype).tiny)
    power_B = (1 - part_B) ** strength if strength >= 0 else part_B ** (-strength)
    mean = power_B.mean()
    return torch.where(mean > 0, power_B / mean, 1.0)


class FeatureDistance(RowTerm):
    """Squared difference of two features, in every dimension."""

    def __init__(self, section: PADTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist."""
        super().__init__()
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)
        teacher = setting.source(TEACHER, wanted_by=section.kind)
        self._student = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
        self._teacher = vector_at(teacher, section.teacher_tap, wanted_by=section.kind)
        self.width = self._teacher.width
        same = self._student.width == self.width
        self.projection = None if same else Head(nn.Linear(self._student.width, self.width))

    def dimensions(self, step: Step) -> Tensor:
        """The distances, (B, D)."""
        student_BC = self._student.of(step.student)
        teacher_BD = self._teacher.of(step.sources[TEACHER]).detach()
        student_BD = widen(student_BC) if self.projection is None else self.projection(student_BC)
        return (widen(teacher_BD) - student_BD).square()

    def rows(self, step: Step) -> Tensor:
        """Their mean for each example."""
        return self.dimensions(step).mean(dim=1)


class PAD(RowTerm):
    """A distance for each example, weighted."""

    def __init__(self, section: PADTerm, setting: Setting, *, of: RowTerm | None = None) -> None:
        """Weight `of`, or without it the distance of the two features.

        Raises:
            UsageError: a tap does not exist.
        """
        super().__init__()
        self.section = section
        self.inner = of or FeatureDistance(section, setting)
        self.sources, self.views = self.inner.sources, self.inner.views
        self.student_taps, self.source_taps = self.inner.student_taps, self.inner.source_taps
        self.smallest_batch = self.inner.smallest_batch
        self.reads_labels = self.inner.reads_labels
        self.warmup_epochs = section.warmup_epochs
        self.head: Head | None = None
        if section.weighting == "uncertainty":
            self._feature = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
            width = self.inner.width if isinstance(self.inner, FeatureDistance) else 1
            self.head = Head(nn.Linear(self._feature.width, width), nn.BatchNorm1d(width))
            self.student_taps = tuple(dict.fromkeys((*self.student_taps, section.student_tap)))
            self.smallest_batch = max(2, self.smallest_batch)  # batch norm

    def prepare(self, survey: Survey) -> None:
        """Let the term inside look."""
        self.inner.prepare(survey)

    def rows(self, step: Step) -> Tensor:
        """`pad_rows` under the uncertainty, or the distances times the weights of a baseline."""
        distances_BD, warming = self._distances(step), self._warming(step)
        plain_B = distances_BD.mean(dim=1)
        if self.head is None:
            return plain_B if warming else plain_B * self._baseline(plain_B.detach())
        feature_BC = self._told_from(step)
        if not warming:
            return pad_rows(distances_BD, self._log_variances(self.head, feature_BC))
        learning_B = pad_rows(distances_BD.detach(), self._log_variances(self.head, feature_BC.detach()))
        return plain_B + (learning_B - learning_B.detach())

    @torch.no_grad()
    def weights(self, step: Step) -> Tensor:
        """How much the distance of each example counts, (B,), 1 in the warm-up.

        Under the uncertainty the mean of exp(-v), else weights of mean 1.
        """
        if self._warming(step):
            return torch.ones(len(step.labels_B), device=step.labels_B.device)
        if self.head is None:
            return self._baseline(self.inner.rows(step))
        return torch.exp(-self._log_variances(self.head, self._told_from(step))).mean(dim=1)

    def _distances(self, step: Step) -> Tensor:
        """(B, D); D is 1 for a term that has one distance an example."""
        if isinstance(self.inner, FeatureDistance):
            return self.inner.dimensions(step)
        return self.inner.rows(step).unsqueeze(1)

    def _told_from(self, step: Step) -> Tensor:
        """The student's feature on the first view that the term inside compares; wide, as variances are."""
        return widen(self._feature.of(step.student, self.inner.views[0]))

    def _log_variances(self, head: Head, feature_BC: Tensor) -> Tensor:
        log_variances_BD: Tensor = head(feature_BC)
        return log_variances_BD.clamp(-_LIMIT, _LIMIT)

    def _baseline(self, distances_B: Tensor) -> Tensor:
        section = self.section
        match section.weighting:
            case "discard":
                return discarding_weights(distances_B, section.discard_fraction)
            case "softmax":
                return softmax_weights(distances_B, section.strength)
            case _:
                return polynomial_weights(distances_B, section.strength)

    def _warming(self, step: Step) -> bool:
        return step.epoch <= self.section.warmup_epochs
