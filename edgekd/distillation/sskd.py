"""Self-supervision knowledge distillation: what a teacher knows of an example and its transformations.

Formula
    x: a plain example; x~: the same, transformed; three transformations, so that B examples give 3B rows.
    A[i, j] = cos(h(f(x~_i)), h(f(x_j))), (3B, B); h = Linear-ReLU-Linear, one on each network's feature f.
    Teacher's h, before the student, the teacher frozen: CE(A, own source), A as it is (temperature 1).
    L = w_tf T^2 KL(z_t(x~) || z_s(x~)), T = 4
      + w_ss T^2 KL(A_t || A_s), softmax over the B sources, T = 0.5
    both averaged over the kept rows; with standardize, the first one of standardized logits.
    The rank of a row: how many of the teacher's scores are strictly higher
    than that of the true entry (class, or own source). Kept are the rows of rank 0 and, of the W others,
    floor(ratio W) of the lowest ranks.
Source
    Xu, Liu, Li, Loy, "Knowledge Distillation Meets Self-Supervision", ECCV 2020, arXiv 2006.07114.
Shapes
    logits (4B, K), pooled features (4B, C) of student and teacher, view after view, any floating dtype;
    heads and losses in fp32. At least 2 examples.
Defaults
    CIFAR-100, all families: label_weight 0.1, KD of weight 0.9 (T = 4), SSKD of weight 1 with w_tf = 2.7,
    w_ss = 10, ratio 1 and 0.75. Head: 60 epochs, batches of 64, rate 0.05, a tenth of it from epochs 30, 45.
Traps
    w_tf and w_ss are those of the authors' code, and of the arXiv version; the supplement of the ECCV paper
    has 3 and 5. On ImageNet with these weights an independent run found less than with KD alone.
    Rows of one rank are kept in the order of the batch, view after view; the authors sort their own order.
    A teacher that gives the true entry and another one the same score has found it: rank 0.
    The head's best epoch on the validation split is kept, not its last one.
    Both networks see four times as many rows; batch statistics of the student are over all of them.
    Where the augmentation turns examples freely, a turned view is no other view.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.features import unit
from edgekd.distillation.frozen import Frozen, HeadTerm, load_head
from edgekd.distillation.head import Head
from edgekd.distillation.logits import kl_rows, log_probabilities, widen
from edgekd.distillation.pooling import Vector, vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Answer, Step
from edgekd.distillation.term import Term
from edgekd.documents.terms.pretext import SSKDTerm
from edgekd.documents.views import PRETEXT, WEAK


def similarities(head: nn.Module, answer: Answer, feature: Vector) -> Tensor:
    """Cosines (3B, B) of transformed rows with plain ones, in the space of a head; float32 or float64."""
    rows_R = answer.of(WEAK, *PRETEXT).features[feature.tap]
    embedded_RD = unit(head(widen(feature.mean(rows_R))))
    size = len(embedded_RD) // (1 + len(PRETEXT))
    return embedded_RD[size:] @ embedded_RD[:size].T


def own_source(transformed_RB: Tensor) -> Tensor:
    """Which plain example each transformed row was made of, (3B,): rows are view after view."""
    return torch.arange(transformed_RB.shape[1], device=transformed_RB.device).repeat(len(PRETEXT))


def kept_rows(scores_RC: Tensor, true_R: Tensor, *, ratio: float) -> Tensor:
    """Which rows are worth learning from, (R,), bool.

    Args:
        scores_RC: (R, C), of the teacher.
        true_R: (R,), int64, the true entry of each row.
        ratio: part of the wrong rows that is kept, the least wrong first.

    Returns:
        All rows of rank 0, and floor(ratio * others) of the others. Nothing is read back to the host.
    """
    rank_R = (scores_RC > scores_RC.gather(1, true_R.unsqueeze(1))).sum(dim=1)
    place_R = torch.empty_like(rank_R)
    order_R = rank_R.argsort(stable=True)
    place_R[order_R] = torch.arange(len(rank_R), device=rank_R.device)
    wrong = (rank_R > 0).sum()
    return place_R < len(rank_R) - wrong + (ratio * wrong.double()).floor()


def selective_kl(
    student_RC: Tensor,
    teacher_RC: Tensor,
    true_R: Tensor,
    *,
    temperature: float,
    ratio: float,
    standardize: bool = False,
) -> Tensor:
    """Soft-target loss, averaged over the rows that the teacher does not get too wrong.

    Args:
        student_RC: (R, C), any floating dtype.
        teacher_RC: (R, C), any floating dtype; receives no gradient.
        true_R: (R,), int64, the true entry of each row.
        temperature: T > 0, of both softmaxes.
        ratio: part of the wrong rows that is kept.
        standardize: bring each row of both to mean 0 and deviation 1 first.

    Returns:
        A scalar, float32 or float64, times T^2; zero where no row is kept.
    """
    kept_R = kept_rows(teacher_RC.detach(), true_R, ratio=ratio)
    student_log_RC = log_probabilities(student_RC, temperature, standardize=standardize)
    teacher_log_RC = log_probabilities(teacher_RC.detach(), temperature, standardize=standardize)
    rows_R = kl_rows(student_log_RC, teacher_log_RC)
    return temperature**2 * torch.where(kept_R, rows_R, 0.0).sum() / kept_R.sum().clamp(min=1)


class SSKD(Term):
    """Soft targets on transformed views, and the similarities of these with the plain one."""

    reads_labels = True

    def __init__(self, section: SSKDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, or the teacher's head was not trained."""
        super().__init__()
        self.section = section
        self.sources, self.views = (TEACHER,), (WEAK, *PRETEXT)
        self.smallest_batch = 2
        if section.needs_head:
            self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)
            teacher = setting.source(TEACHER, wanted_by=section.kind)
            self._student = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
            self._teacher = vector_at(teacher, section.teacher_tap, wanted_by=section.kind)
            self.student_head = _head(self._student)
            self.teacher_head = self._trained_head(setting)

    def _trained_head(self, setting: Setting) -> Frozen:
        head = _head(self._teacher)
        load_head(head, setting, wanted_by=self.section.kind)
        return Frozen(head)

    def forward(self, step: Step) -> Tensor:
        """The weighted sum of both losses; one without a weight is not computed."""
        losses = []
        if self.section.transformed_weight:
            losses.append(self.section.transformed_weight * self._on_transformed_views(step))
        if self.section.similarity_weight:
            losses.append(self.section.similarity_weight * self._on_similarities(step))
        return torch.stack(losses).sum()

    def _on_transformed_views(self, step: Step) -> Tensor:
        return selective_kl(
            step.student.of(*PRETEXT).logits_RK,
            step.sources[TEACHER].of(*PRETEXT).logits_RK,
            step.labels_B.repeat(len(PRETEXT)),
            temperature=self.section.transformed_temperature,
            ratio=self.section.transformed_ratio,
            standardize=self.section.standardize,
        )

    def _on_similarities(self, step: Step) -> Tensor:
        student_RB = similarities(self.student_head, step.student, self._student)
        teacher_RB = similarities(self.teacher_head, step.sources[TEACHER], self._teacher)
        return selective_kl(
            student_RB,
            teacher_RB,
            own_source(student_RB),
            temperature=self.section.similarity_temperature,
            ratio=self.section.similarity_ratio,
        )


class SSKDHead(HeadTerm):
    """The teacher's head learns which plain example a transformed one was made of."""

    def __init__(self, section: SSKDTerm, setting: Setting) -> None:
        """Raises UsageError: the tap does not exist. The setting's student is the frozen teacher."""
        super().__init__()
        self.views, self.student_taps = (WEAK, *PRETEXT), (section.teacher_tap,)
        self.smallest_batch = 2
        self._feature = vector_at(setting.student, section.teacher_tap, wanted_by=section.kind)
        self.head = _head(self._feature)

    def forward(self, step: Step) -> Tensor:
        """Cross-entropy of the similarities with the own source, at temperature 1."""
        scores_RB = similarities(self.head, step.student, self._feature)
        return F.cross_entropy(scores_RB, own_source(scores_RB))


def _head(feature: Vector) -> Head:
    width = feature.width
    return Head(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
