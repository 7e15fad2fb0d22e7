"""USKD: a network's own soft labels, without a teacher.

Formula
    p = softmax(z);  q = p over the classes other than the label y, renormalized;  v = weak head's softmax
    L = alpha L_target + beta L_others + mu L_weak
    L_target = - w ln p[y], averaged;  w_i = p_i[y]^2 + 1 - mean_j p_j[y]^2, without gradient
    L_others = - sum_{k != y} Z_k ln q[k], averaged;  Z_k = (1 / r_k) / (1 + 1/2 + ... + 1/(K-1)), without
    gradient; r_k = rank of class k among the others by v[k] / (1 - v[y]) + q[k], the largest first
    L_weak = cross-entropy of the weak head with the labels, smoothed by 0.1
Source
    Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with
    Normalized Loss and Customized Soft Labels", ICCV 2023, arXiv 2303.13005.
Shapes
    logits (B, K), K >= 2, and a middle feature (B, ...) of the student, any floating dtype; computed in fp32.
    labels (B,). The weak head is one linear map of the feature's mean over its places; it is not shipped.
Defaults
    label_weight 1 (the cross-entropy stays), weight 1, the feature of the last stage but one.
    ImageNet CNNs: alpha 1, beta 0.1, mu 0.005. CIFAR-100, ResNet-18: alpha, beta and mu 0.1.
Traps
    On CIFAR-100 the published 79.90 was not reproduced by others (77.91).
    The weak head's gradient goes on into the network, as in the authors' code; only the ranking has none.
    The released code ranks by log-probabilities of the network, and the label among the classes, so that the
    others' shares mostly go as 1/2, 1/3, ...; here by probabilities, and 1, 1/2, ... among the others.
    w depends on the batch. Equal scores are ranked in the order of the classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.logits import log_probabilities, widen
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.distillation.target import Split, split_at
from edgekd.distillation.term import Term
from edgekd.documents.terms.classes import USKDTerm
from edgekd.errors import UsageError

_SMOOTHING = 0.1


def uskd_loss(
    logits_BK: Tensor, weak_logits_BK: Tensor, labels_B: Tensor, *, alpha: float, beta: float, mu: float
) -> Tensor:
    """The network's loss against soft labels of its own making: a scalar, float32 or float64, in nats.

    Args:
        logits_BK: (B, K), K >= 2, any floating dtype.
        weak_logits_BK: (B, K), of the weak head on a middle feature; any floating dtype.
        labels_B: (B,), int64.
        alpha: factor of the part of the label's class.
        beta: factor of the part of the other classes.
        mu: factor of the weak head's own cross-entropy.
    """
    split = split_at(log_probabilities(logits_BK, 1.0), labels_B)
    weak_split = split_at(log_probabilities(weak_logits_BK, 1.0), labels_B)
    target = -(_confidence(split) * split.target_B).mean()
    others = -(_zipf_shares(split, weak_split) * split.others_BK).sum(dim=1).mean()
    weak = F.cross_entropy(widen(weak_logits_BK), labels_B, label_smoothing=_SMOOTHING)
    return alpha * target + beta * others + mu * weak


def _confidence(split: Split) -> Tensor:
    """Weight of each example's own label, (B,), of mean 1, without gradient."""
    squared_B = (2 * split.target_B.detach()).exp()
    return squared_B + 1 - squared_B.mean()


def _zipf_shares(own: Split, weak: Split) -> Tensor:
    """Share of each other class by the rank that both heads give it, (B, K); zero at the label."""
    score_BK = own.others_BK.detach().exp() + weak.others_BK.detach().exp()
    score_BK = score_BK.masked_fill(own.is_target_BK, -1.0)  # the last place
    order_BK = score_BK.argsort(dim=1, descending=True, stable=True)
    others = score_BK.shape[1] - 1
    share_K = 1 / torch.arange(1, others + 2, dtype=score_BK.dtype, device=score_BK.device)
    share_K = (share_K / share_K[:others].sum()).expand_as(order_BK)
    shares_BK = torch.zeros_like(score_BK).scatter(1, order_BK, share_K)
    return shares_BK.masked_fill(own.is_target_BK, 0.0)


class USKD(Term):
    """Soft labels that the student makes for itself, with a weak head on a middle feature."""

    reads_labels = True

    def __init__(self, section: USKDTerm, setting: Setting) -> None:
        """Raises UsageError: the tap does not exist, or none is named and there are no two stages."""
        super().__init__()
        self.section = section
        self.tap = section.student_tap or _middle(setting, wanted_by=section.kind)
        self._feature = vector_at(setting.student, self.tap, wanted_by=section.kind)
        self.views, self.student_taps = (section.view,), (self.tap,)
        self.head = Head(nn.Linear(self._feature.width, setting.num_classes))

    def forward(self, step: Step) -> Tensor:
        """`uskd_loss` of the student and its weak head."""
        section = self.section
        return uskd_loss(
            step.student.logits(section.view),
            self.head(self._feature.of(step.student, section.view)),
            step.labels_B,
            alpha=section.alpha,
            beta=section.beta,
            mu=section.mu,
        )


def _middle(setting: Setting, *, wanted_by: str) -> str:
    """The last stage but one of the student."""
    stages = setting.student.stages()
    if len(stages) < 2:
        raise UsageError(
            "needs a middle feature, and the student has no two taps called stage1, stage2, ...",
            where=f"term {wanted_by}",
            hint=f"name a student_tap; taps of the student: {', '.join(setting.student.shapes)}",
        )
    return stages[-2]
