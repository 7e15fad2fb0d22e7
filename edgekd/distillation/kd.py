"""Knowledge distillation by soft targets.

    L = T^2 KL(softmax(z_t / T) || softmax(z_s / T)), summed over classes, averaged over examples

Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531. T^2 keeps the
size of the gradient nearly independent of T, so that one weight serves every temperature. Computed in fp32
from log-probabilities on both sides: under bf16 or fp16 neither an overflow nor the logarithm of zero occurs.
Axes: B examples, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from edgekd.distillation.step import TEACHER, Step


def kd_loss(student_logits_BK: Tensor, teacher_logits_BK: Tensor, *, temperature: float) -> Tensor:
    """Soft-target loss of a batch; zero where the student equals the teacher up to a constant a row.

    Args:
        student_logits_BK: (B, K), any floating dtype.
        teacher_logits_BK: (B, K), any floating dtype; receives no gradient.
        temperature: T > 0, of both softmaxes.

    Returns:
        A scalar, float32 (float64 for float64 logits), in nats.
    """
    student_BK = _log_probabilities(student_logits_BK, temperature)
    teacher_BK = _log_probabilities(teacher_logits_BK.detach(), temperature)
    return temperature**2 * F.kl_div(student_BK, teacher_BK, reduction="batchmean", log_target=True)


def _log_probabilities(logits_BK: Tensor, temperature: float) -> Tensor:
    dtype = torch.promote_types(logits_BK.dtype, torch.float32)
    return F.log_softmax(logits_BK.to(dtype) / temperature, dim=1)


@dataclass(frozen=True)
class KD:
    """Soft targets from one source."""

    temperature: float
    source: str = TEACHER

    @property
    def sources(self) -> tuple[str, ...]:
        """The one network that teaches."""
        return (self.source,)

    def __call__(self, step: Step) -> Tensor:
        """`kd_loss` of the student against the source."""
        return kd_loss(step.student_logits_BK, step.sources[self.source], temperature=self.temperature)
