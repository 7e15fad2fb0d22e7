"""What a quantized network is worth on validation examples, beside the fp32 student that it was made from."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.documents.sensitivity import Worth

_ROWS = 64


class Judge:
    """The validation examples, their labels, and what the fp32 student says of them."""

    def __init__(self, x_NC: Tensor, y_N: Tensor, expected_NK: Tensor) -> None:
        self.x_NC, self._y_N, self._expected_NK = x_NC, y_N, expected_NK
        self._right = self._count_right(expected_NK)
        self.top1 = self._right / len(y_N)
        """The student's share of right answers."""

    @classmethod
    def of(cls, student: nn.Module, x_NC: Tensor, y_N: Tensor) -> Judge:
        """Let the student, in evaluation and on the examples' device, answer all of them."""
        return cls(x_NC, y_N, _predict(student, x_NC))

    def some(self, count: int) -> Judge:
        """The judge of at most so many of the examples, evenly spaced."""
        chosen = torch.linspace(0, len(self.x_NC) - 1, min(count, len(self.x_NC))).long()
        return Judge(self.x_NC[chosen], self._y_N[chosen], self._expected_NK[chosen])

    def worth(self, network: nn.Module) -> Worth:
        """What a network in evaluation is worth."""
        return self.worth_of(_predict(network, self.x_NC))

    def worth_of(self, logits_NK: Tensor) -> Worth:
        """What these answers to the examples are worth."""
        right, count = self._count_right(logits_NK), len(self._y_N)
        expected_NK, own_NK = (F.log_softmax(each, dim=1) for each in (self._expected_NK, logits_NK))
        kl = F.kl_div(own_NK, expected_NK, reduction="batchmean", log_target=True)
        return Worth(
            top1=right / count,
            drop_pt=100 * (self._right - right) / count,  # of whole numbers: 5 of 1000 is not more than 0.5
            kl=max(float(kl), 0.0),  # in this order nan stays nan
            count=count,
        )

    def _count_right(self, logits_NK: Tensor) -> int:
        return int((logits_NK.argmax(1) == self._y_N).sum())


@torch.no_grad()
def _predict(network: nn.Module, x_NC: Tensor) -> Tensor:
    return torch.cat([network(x_BC).float() for x_BC in torch.split(x_NC, _ROWS)])
