"""Contrastive representation distillation.

Formula
    g_s, g_t = embeddings of width 128: a linear map of each network's pooled feature, at length 1.
    M_s, M_t = memories of both embeddings of all N training examples.
    Student's side, for an example y with K negatives k out of other classes:
        s(m) = exp(g_s . m / T) / Z,  c = K / N
        l = -ln[s(M_t[y]) / (s(M_t[y]) + c)] - sum_k ln[c / (s(M_t[k]) + c)]
    Teacher's side: the same with g_t and M_s.  L = sum of both sides, averaged over examples.
    Z, one a side, is N x the mean of exp(...) over the first batch, then constant.
    After each step M[y] <- (m M[y] + (1 - m) g) / its length.
Source
    Tian, Krishnan, Isola, "Contrastive Representation Distillation", ICLR 2020, arXiv 1910.10699.
Shapes
    features (B, C) of student and teacher, any floating dtype; maps are averaged over their positions.
    Memories 2 x N x 128 in fp32: 51 MB for 50,000 examples.
Defaults
    CIFAR-100, all families: 1.0 CE + 0.8 CRD, K = 16384, T = 0.07, m = 0.5; with 1.0 KD (T = 4) beside it
    in the form CRD+KD. Batches of 64 on one device: a larger batch at a scaled rate lost up to a point.
Traps
    The negatives are never of the example's own class. We draw them anew in each step and with replacement;
    the authors' code without. Where no more than K examples are of other classes, each is used once, and c
    counts those.
    The memories are of one training set, of the labels that it had, and are not shared between processes.
    Both embeddings learn; the gradient stops before the teacher's network.
    Constants of 1e-7 in the denominators are the authors'.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.memory import check_memory
from edgekd.distillation.negatives import OtherClasses
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import Survey, Term
from edgekd.documents.terms.contrastive import CRDTerm
from edgekd.errors import UsageError

_EPS = 1e-7


def crd_rows(scores_BK: Tensor, counts_BK: Tensor, share_B: Tensor) -> Tensor:
    """Noise-contrastive loss of one side, for each example.

    Args:
        scores_BK: (B, 1 + K), float32 or float64, positive: of the example itself, then of its negatives.
        counts_BK: (B, 1 + K), bool: which of them count; the first always does.
        share_B: (B,), c = negatives that count / N.

    Returns:
        (B,), in nats.
    """
    share_B1 = share_B.unsqueeze(1)
    right_B = torch.log1p((share_B + _EPS) / scores_BK[:, 0])
    wrong_BK = torch.log1p((scores_BK[:, 1:] + _EPS) / share_B1)
    return right_B + (wrong_BK * counts_BK[:, 1:]).sum(dim=1)


def similarities(anchors_BD: Tensor, bank_ND: Tensor, numbers_BK: Tensor) -> Tensor:
    """Products of each anchor with the rows of a bank that it names, (B, K).

    By way of all N products, or of the rows themselves, whichever takes less memory; the gradient reaches
    the anchors, and the bank may change afterwards.
    """
    (count, width), picked = bank_ND.shape, numbers_BK.numel()
    if count * (len(anchors_BD) + width) <= picked * width:
        return (anchors_BD @ bank_ND.clone().T).gather(1, numbers_BK)
    return torch.bmm(bank_ND[numbers_BK], anchors_BD.unsqueeze(2)).squeeze(2)


class Side(nn.Module):
    """One network's part: its embedding, the memory of it, and the constant of its scores."""

    bank_ND: Tensor
    constant: Tensor

    def __init__(self, section: CRDTerm, count: int, width: int) -> None:
        super().__init__()
        self._temperature, self._momentum = section.temperature, section.momentum
        self.head = Head(nn.Linear(width, section.dimension))
        self.register_buffer("bank_ND", _random_bank(count, section.dimension))
        self.register_buffer("constant", torch.zeros(()))  # until the first batch

    def embed(self, feature_BC: Tensor) -> Tensor:
        """(B, C) -> (B, D), each of length 1."""
        return F.normalize(self.head(feature_BC), dim=1)

    def scores(self, anchors_BD: Tensor, bank_ND: Tensor, numbers_BK: Tensor, counts_BK: Tensor) -> Tensor:
        """exp(anchor . row / T) / Z, (B, K), against the other side's memory; the first batch sets Z."""
        powers_BK = torch.exp(similarities(anchors_BD, bank_ND, numbers_BK) / self._temperature)
        with torch.no_grad():
            mean = (powers_BK * counts_BK).sum() / counts_BK.sum()
            constant = torch.where(self.constant > 0, self.constant, len(bank_ND) * mean)
            if self.training:
                self.constant.copy_(constant)
        return powers_BK / constant

    @torch.no_grad()
    def remember(self, indices_B: Tensor, embedded_BD: Tensor) -> None:
        """Mix the embeddings of a batch into the memory."""
        mixed_BD = self._momentum * self.bank_ND[indices_B] + (1 - self._momentum) * embedded_BD
        self.bank_ND.index_copy_(0, indices_B, F.normalize(mixed_BD, dim=1))


class CRD(Term):
    """Contrast of student and teacher with memories of both."""

    reads_labels = True
    memory = ("student.bank_ND", "teacher.bank_ND")

    def __init__(self, section: CRDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist."""
        super().__init__()
        self.section = section
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)
        teacher = setting.source(TEACHER, wanted_by=section.kind)
        self._student_feature = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
        self._teacher_feature = vector_at(teacher, section.teacher_tap, wanted_by=section.kind)
        self.student = Side(section, setting.count, self._student_feature.width)
        self.teacher = Side(section, setting.count, self._teacher_feature.width)
        self._num_classes = setting.num_classes
        self._negatives: OtherClasses | None = None

    def prepare(self, survey: Survey) -> None:
        """Sort the training examples by class.

        Raises:
            UsageError: the memory is of another number of examples, or all are of one class.
        """
        check_memory(len(self.student.bank_ND), survey, wanted_by=self.section.kind)
        if bool((survey.labels_N == survey.labels_N[0]).all()):
            raise UsageError(
                "contrasts an example with those of other classes, and all are of one",
                where=f"term {self.section.kind}",
                hint="leave the term out, or check the labels",
            )
        self._negatives = OtherClasses.among(survey.labels_N, self._num_classes, asked=self.section.negatives)

    def forward(self, step: Step) -> Tensor:
        """Mean of both sides' `crd_rows`; in training the memories then take in the batch."""
        student_BD = self.student.embed(self._student_feature.of(step.student))
        teacher_BD = self.teacher.embed(self._teacher_feature.of(step.sources[TEACHER]).detach())
        numbers_BK, counts_BK, share_B = self._compared(step)
        student_BK = self.student.scores(student_BD, self.teacher.bank_ND, numbers_BK, counts_BK)
        teacher_BK = self.teacher.scores(teacher_BD, self.student.bank_ND, numbers_BK, counts_BK)
        rows_B = crd_rows(student_BK, counts_BK, share_B) + crd_rows(teacher_BK, counts_BK, share_B)
        if self.training:
            self.student.remember(step.indices_B, student_BD)
            self.teacher.remember(step.indices_B, teacher_BD)
        return rows_B.mean()

    def _compared(self, step: Step) -> tuple[Tensor, Tensor, Tensor]:
        """Each example and its negatives: numbers (B, 1 + K), which count (B, 1 + K), c (B,)."""
        assert self._negatives is not None, "prepare comes before the first step"
        numbers_BK, counts_BK = self._negatives.draw(step.labels_B)
        own_B1 = step.indices_B.unsqueeze(1)
        with_own_BK = torch.cat([torch.ones_like(own_B1, dtype=torch.bool), counts_BK], dim=1)
        bank_ND = self.student.bank_ND
        share_B = self._negatives.count(step.labels_B).to(bank_ND.dtype) / len(bank_ND)
        return torch.cat([own_B1, numbers_BK], dim=1), with_own_BK, share_B


def _random_bank(count: int, width: int) -> Tensor:
    """(N, D), float32, uniform within the range in which a row has length 1 on average."""
    limit = 1 / math.sqrt(width / 3)
    return torch.rand(count, width) * 2 * limit - limit
