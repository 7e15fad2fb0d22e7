"""An ensemble teaches: the mean of what several networks say.

Formula
    z = ln sum_m w_m softmax(z_m), with w_m >= 0 and sum w_m = 1, are the logits of the ensemble.
    combine = "mean": w_m = 1 / M. "weighted": w_m = max(s_m, 0)^power / sum, with s_m the transferability of
    network m, equal where none is above 0. "nearest": 1 for the largest s_m, 0 for the others.
Source
    Shen, Savvides, "MEAL V2", arXiv 2009.08453 (mean of probabilities); Borup, Phoo, Hariharan, "Distilling
    from Similar Tasks for Transfer Learning on a Budget", ICCV 2023 (DistillWeighted, DistillNearest).
Shapes
    every network: x (N, C, ...) -> logits (N, K) of the task's classes in the task's order. Taps are those of
    the main network: a term over features has one teacher.
Defaults
    MEAL V2: two large networks, mean, the term `meal` with T = 1 and no labels (label_weight = 0), a student
    that starts from its own trained weights, no weight decay. CIFAR-100: KD, T = 4, label_weight = 0.1.
    DistillWeighted: power as large as the networks are unlike; 1 is close to the mean.
Traps
    The mean is over probabilities at T = 1; a term's temperature works on z. Averaging logits is another
    teacher.
    The mean is what gains in MEAL V2; its loss, with the discriminator, is the term `meal`.
    DistillWeighted has one head a source, for sources with classes of their own; here all have the task's.
    Every network runs in every step where the augmentation is random: M networks cost M times as much.
    With "nearest" the main network runs along for its taps; the answer is the nearest network's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.networks.taps import taps_of


class Ensemble(nn.Module):
    """Several networks that answer as one; its taps are those of the first network."""

    def __init__(self, members: Sequence[nn.Module], shares: Sequence[float]) -> None:
        """Take the members over as they are.

        Args:
            members: the main network first.
            shares: the weight of each, not negative, at least one above 0; they are normalized.
        """
        super().__init__()
        self.members = nn.ModuleList(members)
        self._log_shares = [math.log(share / sum(shares)) if share > 0 else None for share in shares]
        self.output_fmt = getattr(members[0], "output_fmt", "NCHW")  # where timm says how its maps lie
        self.taps = {tap: f"members.0.{path}".rstrip(".") for tap, path in taps_of(members[0]).items()}

    def forward(self, x_NC: Tensor) -> Tensor:
        """Log of the weighted mean of the members' probabilities, (N, K)."""
        said = []
        for place, (member, log_share) in enumerate(zip(self.members, self._log_shares, strict=True)):
            if place == 0 or log_share is not None:  # the main network has the taps
                logits_NK = member(x_NC)
                if log_share is not None:
                    said.append(F.log_softmax(logits_NK.float(), dim=1) + log_share)
        return torch.logsumexp(torch.stack(said), dim=0) if len(said) > 1 else said[0]


def shares_of(scores: Sequence[float], *, nearest: bool, power: float) -> list[float]:
    """The weight of each network from its score; equal weights where no score is above 0.

    Returns:
        Weights that sum to 1, in the order of the scores.
    """
    if nearest:
        best = max(range(len(scores)), key=lambda place: scores[place])
        return [float(place == best) for place in range(len(scores))]
    raised = [max(score, 0.0) ** power if score > 0 or power == 0 else 0.0 for score in scores]
    total = sum(raised)
    return [one / total if total else 1 / len(scores) for one in raised]
