"""Heads that were trained on the frozen teacher before the student learns from both."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from edgekd.distillation.setting import Setting
from edgekd.distillation.term import Term
from edgekd.errors import UsageError


class HeadTerm(Term):
    """A term that a head on a frozen network learns by; the network stands in the student's place."""

    head: nn.Module
    """What is kept of it."""


class Frozen(nn.Module):
    """A head as it was trained: no gradient, and evaluation mode for good."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head.eval().requires_grad_(False)

    def train(self, mode: bool = True) -> Frozen:
        """Remain in evaluation mode."""
        return super().train(False)

    def forward(self, features: Any) -> Any:
        """What the head makes of the teacher's features, without gradient."""
        with torch.no_grad():
            return self.head(features)


def load_head(head: nn.Module, setting: Setting, *, wanted_by: str) -> None:
    """Give a head the state that it was trained to on the frozen teacher.

    Raises:
        UsageError: there is none for this kind of term, or it is of another head.
    """
    state = setting.heads.get(wanted_by)
    if state is None:
        raise UsageError(
            "needs a head that was trained on the frozen teacher, and there is none",
            where=f"term {wanted_by}",
            hint="edgekd distill trains it; in Python: edgekd.training.heads.train_heads",
        )
    shapes = {name: tuple(value.shape) for name, value in head.state_dict().items()}
    if {name: tuple(value.shape) for name, value in state.items()} != shapes:
        raise UsageError(
            "the head on the teacher was trained for other taps, another teacher or other classes",
            where=f"term {wanted_by}",
            hint="train it again with this section, this teacher and this task",
        )
    head.load_state_dict(dict(state))
