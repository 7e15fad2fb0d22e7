"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edgekd.documents.recipe import QuantizedTraining, Training

_LAST_FRACTION = 0.01
"""A cosine ends at one percent of the peak."""


@dataclass(frozen=True)
class Schedule:
    """Linear warm-up to `peak`, then a half cosine to one percent of it, or steps by `gamma`."""

    peak: float
    steps: int
    """Steps of the whole training."""
    warmup_steps: int = 0
    milestones: tuple[int, ...] = ()
    """Steps from which the rate is multiplied by gamma once more; none means a cosine."""
    gamma: float = 0.1

    def learning_rate(self, step: int) -> float:
        """The rate of step 0, 1, ..., steps - 1."""
        if step < self.warmup_steps:
            return self.peak * ((step + 1) / self.warmup_steps)
        if self.milestones:
            return self.peak * self.gamma ** sum(step >= milestone for milestone in self.milestones)
        last = max(1, self.steps - 1 - self.warmup_steps)
        progress = min(1.0, (step - self.warmup_steps) / last)
        cosine = 0.5 * (1 + math.cos(math.pi * progress))
        return self.peak * (_LAST_FRACTION + (1 - _LAST_FRACTION) * cosine)


def schedule_of(section: Training | QuantizedTraining, *, steps_per_epoch: int) -> Schedule:
    """The schedule that a recipe asks for; quantized training starts at its peak and follows a cosine."""
    steps = section.epochs * steps_per_epoch
    if isinstance(section, QuantizedTraining):
        return Schedule(section.learning_rate, steps)
    return Schedule(
        section.learning_rate,
        steps,
        warmup_steps=min(steps, round(section.warmup_epochs * steps_per_epoch)),
        milestones=tuple(epoch * steps_per_epoch for epoch in section.milestones),
        gamma=section.gamma,
    )
