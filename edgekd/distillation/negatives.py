"""Training examples of other classes, drawn for each example of a batch on the device.

The examples lie sorted by class; for an example of a class of n a number below N - n is drawn and steps over
the block of its class. No list of candidates is kept, and nothing is drawn in vain.
Axes: N training examples, B examples of a batch, C classes, K drawn examples.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_WIDE = 2**62
"""Range of the raw draws: modulo N it favors no example by more than N / 2^62."""


@dataclass(frozen=True)
class OtherClasses:
    """Draws the numbers of examples whose class differs."""

    order_N: Tensor
    """The examples' numbers, sorted by class."""
    first_C: Tensor
    """Where each class begins there."""
    size_C: Tensor
    """Examples of each class."""
    width: int
    """K: as many as asked for, or as there are at most."""
    complete: bool
    """Whether every example gets all examples of other classes, so that nothing is random."""

    @classmethod
    def among(cls, labels_N: Tensor, num_classes: int, *, asked: int) -> OtherClasses:
        """Prepare to draw `asked` examples of other classes than each label's.

        Args:
            labels_N: (N,), int64, in [0, num_classes), of two classes at least.
            num_classes: C.
            asked: how many, at least 1.
        """
        size_C = torch.bincount(labels_N, minlength=num_classes)
        most = int((len(labels_N) - size_C[size_C > 0]).max())
        return cls(
            order_N=torch.argsort(labels_N, stable=True),
            first_C=torch.cumsum(size_C, 0) - size_C,
            size_C=size_C,
            width=min(asked, most),
            complete=most <= asked,
        )

    def count(self, labels_B: Tensor) -> Tensor:
        """How many examples each one gets, (B,), int64."""
        return (len(self.order_N) - self.size_C[labels_B]).clamp(max=self.width)

    def draw(self, labels_B: Tensor) -> tuple[Tensor, Tensor]:
        """Examples of other classes than each label's.

        Where there are more than K, K are drawn evenly with replacement from torch's global generator of
        the device; where there are not, each comes once.

        Args:
            labels_B: (B,), int64.

        Returns:
            Numbers of training examples, (B, K), int64; and which of them count, (B, K), bool, False behind
            the last where there are fewer than K.
        """
        first_B1, size_B1 = self.first_C[labels_B].unsqueeze(1), self.size_C[labels_B].unsqueeze(1)
        others_B1 = len(self.order_N) - size_B1
        place_BK = torch.arange(self.width, device=labels_B.device).expand(len(labels_B), -1)
        counts_BK = place_BK < others_B1
        if not self.complete:
            raw_BK = torch.randint(_WIDE, place_BK.shape, device=labels_B.device)
            place_BK = torch.where(others_B1 > self.width, raw_BK % others_B1, place_BK)
        place_BK = torch.where(place_BK < first_B1, place_BK, place_BK + size_B1)
        return self.order_N[place_BK.clamp(max=len(self.order_N) - 1)], counts_BK
