"""Progressive self-knowledge distillation: labels softened by the network's own answers of the last epoch.

Formula
    L = -sum_k q_k ln softmax(z_s)_k,  q = (1 - a_e) onehot(y) + a_e p,  a_e = alpha e / E in epoch e of E,
    p = softmax(z_s) of the same example in the epoch before, under that epoch's augmentation.
    In its first epoch an example has no p, and q = onehot(y).
Source
    Kim et al., "Self-Knowledge Distillation with Progressive Refinement of Targets", ICCV 2021,
    arXiv 2006.12000.
Shapes
    logits (B, K) of the student, any floating dtype; computed in fp32.
    Memory N x K in fp16: 10 MB for 50,000 examples of 100 classes, 2.6 GB for ImageNet.
Defaults
    All families: label_weight 0, weight 1, alpha 0.8. CIFAR-100: 300 epochs, batches of 128, learning rate
    0.1, divided by 10 at 150 and 225.
Traps
    It holds the cross-entropy with the labels: label_weight above 0 counts them twice.
    No teacher: in every epoch the student is its own. The memory is of one training set and is not shared
    between processes; it travels in checkpoints, so that a resumed training does not fall back to the labels.
    fp16 keeps a probability to 3 digits, and one below 3e-8 as 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.distillation.logits import log_probabilities
from edgekd.distillation.memory import check_memory
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.distillation.term import RowTerm, Survey
from edgekd.documents.terms.own import PSKDTerm


def pskd_rows(logits_BK: Tensor, labels_B: Tensor, before_BK: Tensor, share: float) -> Tensor:
    """Cross-entropy with softened labels, for each example.

    Args:
        logits_BK: (B, K), any floating dtype.
        labels_B: (B,), int64, none of them missing.
        before_BK: (B, K), the probabilities of the epoch before; a row of zeros where there are none.
        share: a_e, in [0, 1].

    Returns:
        (B,), float32 (float64 for float64 logits), in nats.
    """
    log_BK = log_probabilities(logits_BK, 1.0)
    right_B = log_BK.gather(1, labels_B.unsqueeze(1)).squeeze(1)
    before_BK = before_BK.to(log_BK.dtype)
    own_B = torch.where(before_BK.sum(dim=1) > 0, (before_BK * log_BK).sum(dim=1), right_B)
    return -((1 - share) * right_B + share * own_B)


class PSKD(RowTerm):
    """The student against its labels and what it said an epoch ago."""

    reads_labels = True
    memory = ("before_NK",)

    before_NK: Tensor

    def __init__(self, section: PSKDTerm, setting: Setting) -> None:
        super().__init__()
        self.section = section
        before_NK = torch.zeros(setting.count, setting.num_classes, dtype=torch.float16)
        self.register_buffer("before_NK", before_NK)

    def prepare(self, survey: Survey) -> None:
        """See that the memory is of these examples.

        Raises:
            UsageError: it is of another number.
        """
        check_memory(len(self.before_NK), survey, wanted_by=self.section.kind)

    def rows(self, step: Step) -> Tensor:
        """`pskd_rows`; in training the answers are then kept for the next epoch."""
        logits_BK, share = step.student.logits(), self.section.alpha * step.epoch / step.epochs
        rows_B = pskd_rows(logits_BK, step.labels_B, self.before_NK[step.indices_B], share)
        if self.training:
            now_BK = torch.softmax(logits_BK.detach().to(rows_B.dtype), dim=1)
            self.before_NK.index_copy_(0, step.indices_B, now_BK.to(self.before_NK.dtype))
        return rows_B
