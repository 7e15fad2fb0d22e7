"""The losses of an epoch, kept on the device until someone asks, and the first of them that is no number.

Reading a value from an accelerator makes the host wait for it, so the loop only puts tensors aside; they are
read together every few hundred steps. Axes: S steps, P parts of the objective.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.distillation.objective import Objective
from edgekd.errors import DivergedError

_STEPS_BETWEEN_READS = 256


class LossLog:
    """Losses of one epoch, averaged over the processes when read."""

    def __init__(
        self,
        fabric: Fabric,
        objective: Objective,
        *,
        epoch: int,
        epochs: int,
        first_step: int,
        hint: str,
    ) -> None:
        """Start the log of `epoch`, whose first step is the training's `first_step`; both count from 1."""
        self._fabric = fabric
        self._names = objective.names
        self._weights = objective.weights(epoch, epochs)
        self._epoch = epoch
        self._first_step = first_step
        self._hint = hint
        self._waiting: list[Tensor] = []
        self._rows: list[list[float]] = []

    def add(self, values_P: Tensor) -> None:
        """Note the parts of a step's loss; waits for their values at one step in a few hundred only.

        Raises:
            DivergedError: at such a read, a loss was not finite.
        """
        self._waiting.append(values_P)
        if len(self._waiting) == _STEPS_BETWEEN_READS:
            self._read()

    def means(self) -> tuple[float, dict[str, float]]:
        """Mean objective and mean of each part over the epoch's steps.

        Raises:
            DivergedError: a loss was not finite.
        """
        self._read()
        means = [math.fsum(column) / len(self._rows) for column in zip(*self._rows, strict=True)]
        return self._total(means), dict(zip(self._names, means, strict=True))

    def _read(self) -> None:
        if not self._waiting:
            return
        values_SP = self._fabric.all_reduce(torch.stack(self._waiting), reduce_op="mean")
        self._waiting.clear()
        for row in values_SP.tolist():
            if not all(math.isfinite(value) for value in row):
                raise self._diverged(row)
            self._rows.append(row)

    def _diverged(self, row: Sequence[float]) -> DivergedError:
        named = list(zip(self._names, row, strict=True))
        parts = ", ".join(f"{name}={value:.4g}" for name, value in named)
        when = f"at step {self._first_step + len(self._rows)} (epoch {self._epoch})"
        what = f"the loss became {self._total(row):g} {when}, {self._place(row)}: {parts}"
        return DivergedError(what, hint=self._hint)

    def _place(self, row: Sequence[float]) -> str:
        """The part that is no number; where all are, the step before has ruined the weights."""
        wrong = [name for name, value in zip(self._names, row, strict=True) if not math.isfinite(value)]
        if len(row) > 1 and len(wrong) == len(row) and self._rows:
            shares = [weight * value for weight, value in zip(self._weights, self._rows[-1], strict=True)]
            most = max(range(len(shares)), key=lambda place: abs(shares[place]))
            return (
                f"in every part; in the step before the largest was '{self._names[most]}', "
                f"{shares[most]:.4g} with its weight"
            )
        return f"first in the part '{wrong[0]}'"

    def _total(self, row: Sequence[float]) -> float:
        return sum(weight * value for weight, value in zip(self._weights, row, strict=True))
