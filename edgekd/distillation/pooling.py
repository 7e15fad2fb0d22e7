"""A feature as one vector an example, whatever its shape."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from edgekd.distillation.features import Layout, layout_of
from edgekd.distillation.setting import Role
from edgekd.distillation.step import Answer
from edgekd.documents.views import WEAK


@dataclass(frozen=True)
class Vector:
    """The feature at a tap, averaged over its positions where it has any."""

    tap: str
    layout: Layout

    @property
    def width(self) -> int:
        """C."""
        return self.layout.channels

    def of(self, answer: Answer, view: str = WEAK) -> Tensor:
        """The vectors (B, C) of one view of a batch, in the feature's dtype."""
        return self.mean(answer.feature(self.tap, view))

    def mean(self, feature_R: Tensor) -> Tensor:
        """(R, ...), as the network gives it -> (R, C)."""
        first = 1 if self.layout.channels_last else 2
        positions = tuple(range(first, first + len(self.layout.positions)))
        return feature_R.mean(dim=positions) if positions else feature_R


def vector_at(role: Role, tap: str, *, wanted_by: str) -> Vector:
    """How to read the feature at a tap.

    Raises:
        UsageError: there is no such tap.
    """
    return Vector(tap, layout_of(role, tap, wanted_by=wanted_by))
