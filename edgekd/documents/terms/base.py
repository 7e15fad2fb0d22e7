"""What every term of the distillation objective may be told in a recipe."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field

from edgekd.documents.base import Section
from edgekd.documents.numbers import NotNegative


class TermSection(Section):
    """A term's weight in the objective, and how the weight changes from epoch to epoch."""

    tag: ClassVar[str]
    """The term's `kind`, by which errors find its keys."""
    needs_teacher: ClassVar[bool] = True
    """Whether it reads the recipe's teacher; a student without such a term has none."""

    weight: NotNegative = 1.0
    """Its factor in the objective."""
    start_epoch: Annotated[int, Field(ge=1)] = 1
    """First epoch in which it takes part."""
    ramp_epochs: NotNegative = 0.0
    """Epochs, from its first one, over which its weight grows linearly to the full value."""
    decay: Literal["constant", "linear", "cosine"] = "constant"
    """How its weight falls, over all epochs, towards zero after the last one; constant keeps it."""

    def weight_at(self, epoch: int, epochs: int) -> float:
        """Its factor in one epoch.

        Args:
            epoch: which one, from 1.
            epochs: how many the training has.
        """
        if epoch < self.start_epoch:
            return 0.0
        ramp = min(1.0, (epoch - self.start_epoch + 1) / self.ramp_epochs) if self.ramp_epochs else 1.0
        done = (epoch - 1) / epochs
        left = {"constant": 1.0, "linear": 1 - done, "cosine": (1 + math.cos(math.pi * done)) / 2}
        return self.weight * ramp * left[self.decay]

    def without_schedule(self) -> Self:
        """The same with its full weight in every epoch."""
        return self.model_copy(update={"start_epoch": 1, "ramp_epochs": 0.0, "decay": "constant"})


class SoftTargetSection(TermSection):
    """A term that has soft targets: a KL between softmaxes of logits."""

    standardize: bool = False
    """Bring the logits of each example to mean 0 and deviation 1 first (Sun et al. 2024); best at T = 2."""
