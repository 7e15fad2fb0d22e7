"""What a term may read of one training step: what the student and the teaching networks made of a batch.

A batch is shown in one view or several; all views go through a network in one forward pass, one after the
other, each with the examples in the same order.
Axes: B examples, R rows (views x examples), K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edgekd.documents.views import WEAK

TEACHER = "teacher"
"""Name of the recipe's teacher among the sources."""
SELF = "self"
"""Name of the student's own fp32 weights among the sources, when the student is being quantized."""


@dataclass(frozen=True)
class Answer:
    """What one network made of the views of a batch."""

    logits_RK: Tensor
    """(R, K), floating, view after view."""
    features: Mapping[str, Tensor] = field(default_factory=dict)
    """Tap -> (R, ...), floating, of the taps that the objective reads."""
    views: tuple[str, ...] = (WEAK,)
    """Names of the views, in the order of the rows."""

    def of(self, *views: str) -> Answer:
        """The answer to some of the views, in the order asked for; no copy where they lie side by side."""
        if views == self.views:
            return self
        features = {tap: self._rows(rows, views) for tap, rows in self.features.items()}
        return Answer(self._rows(self.logits_RK, views), features, views)

    def logits(self, view: str = WEAK) -> Tensor:
        """Logits (B, K) of one view."""
        return self._rows(self.logits_RK, (view,))

    def feature(self, tap: str, view: str = WEAK) -> Tensor:
        """Feature (B, ...) at a tap of one view."""
        return self._rows(self.features[tap], (view,))

    def _rows(self, rows_R: Tensor, views: tuple[str, ...]) -> Tensor:
        places = [self.views.index(view) for view in views]
        size = len(rows_R) // len(self.views)
        first = places[0]
        if places == list(range(first, first + len(places))):
            return rows_R[first * size : (first + len(places)) * size]
        return torch.cat([rows_R[place * size : (place + 1) * size] for place in places])


@dataclass(frozen=True)
class Step:
    """One batch as the objective sees it."""

    student: Answer
    """Of the network that learns; carries the gradient."""
    labels_B: Tensor
    """(B,), int64; -1 for an example without a label."""
    sources: Mapping[str, Answer]
    """Of each network that teaches, on the same views of the same examples; no gradient."""
    indices_B: Tensor
    """(B,), int64: which examples of the training split these are."""
    epoch: int = 1
    """The epoch under way, from 1."""
    epochs: int = 1
    """How many the training has."""
