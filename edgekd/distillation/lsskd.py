"""Layered self-supervised knowledge distillation: every stage learns from the deepest one, without a teacher.

Formula
    a_l, e_l: joint logits (class y, transformation r) and feature of an auxiliary classifier at stage l of
    the student; L is the deepest stage, sg[] stops the gradient.
    L = w_joint sum_l CE(a_l, (y, r))
      + w_transfer sum_{l<L} T^2 KL(softmax(sg[a_L] / T) || softmax(a_l / T))
      + w_align sum_{l<L} mean_d (e_l - sg[e_L])_d^2
    each averaged over the rows of all four views.
Source
    "Layered Self-Supervised Knowledge Distillation" (LSSKD), arXiv 2506.07055.
Shapes
    features of the student's stages (4B, C, X), view after view, any floating dtype; losses in fp32,
    classifiers in the features' precision. X: (H, W), L, or none.
Defaults
    All families: label_weight 1, LSSKD of weight 1, T = 3 (that of HSAKD). The three factors of 1 are ours.
Traps
    No code was published: this is a reconstruction from the paper's account. There the stages' features are
    projected to the deepest one's; here e_l is what the classifier's convolutions make of stage l, which
    project it, and the squares are averaged over the feature, so that a factor fits every width.
    The student sees four times as many rows; its batch statistics are over all of them.
    Networks with a single stage have nothing to learn from a deeper one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.auxiliary import auxiliary_classifiers, stage_features
from edgekd.distillation.joint import TURNS, joint_cross_entropy
from edgekd.distillation.kd import kd_rows
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.distillation.term import Term
from edgekd.documents.terms.pretext import LSSKDTerm
from edgekd.errors import UsageError


class LSSKD(Term):
    """Class and transformation at every stage, and what the deepest stage makes of them."""

    def __init__(self, section: LSSKDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, or there is one alone."""
        super().__init__()
        self.section = section
        self.views, self.student_taps = TURNS, section.student_taps or setting.student.stages()
        if len(self.student_taps) < 2:
            raise UsageError(
                f"needs two stages of the student or more; found {', '.join(self.student_taps) or 'none'}",
                where=f"term {section.kind}",
                hint=f"name student_taps, of {', '.join(setting.student.shapes)}",
            )
        self.head = auxiliary_classifiers(
            setting.student, self.student_taps, setting.num_classes, wanted_by=section.kind
        )

    def forward(self, step: Step) -> Tensor:
        """The weighted sum of the three losses."""
        section = self.section
        embedded = self.head.embed(stage_features(step.student, self.student_taps))
        logits = self.head.classify(embedded)
        joint = [joint_cross_entropy(logits_RJ, step.labels_B) for logits_RJ in logits]
        return (
            section.joint_weight * torch.stack(joint).sum()
            + section.transfer_weight
            * transfer_loss(logits, temperature=section.temperature, standardize=section.standardize)
            + section.alignment_weight * alignment_loss(embedded)
        )


def transfer_loss(logits: list[Tensor], *, temperature: float, standardize: bool = False) -> Tensor:
    """Soft targets of the last of several logits (R, J) for each of the others, summed over these."""
    *others, deepest_RJ = logits
    losses = [
        kd_rows(logits_RJ, deepest_RJ, temperature=temperature, standardize=standardize).mean()
        for logits_RJ in others
    ]
    return torch.stack(losses).sum()


def alignment_loss(embedded: list[Tensor]) -> Tensor:
    """Mean squared distance of each of several features (R, D) to the last one, summed over these."""
    *others, deepest_RD = embedded
    return torch.stack([(one_RD - deepest_RD.detach()).square().mean() for one_RD in others]).sum()
