"""The network that learns and its objective as one module, so that DDP shares the gradients of both.

Axes: B examples, R rows (views x examples), C channels and the rest of an example.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from edgekd.distillation.objective import Objective
from edgekd.distillation.step import Answer, Step
from edgekd.networks.taps import TapReader
from edgekd.training.precision import Precision


class Learner(nn.Module):
    """Runs the network on the rows of a batch and computes the objective."""

    def __init__(self, network: nn.Module, objective: Objective, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.objective = objective
        self._precision = precision
        self._reader = TapReader(network, objective.student_taps)

    def forward(
        self,
        x_RC: Tensor,
        labels_B: Tensor,
        indices_B: Tensor,
        sources: Mapping[str, Answer],
        *,
        epoch: int,
        epochs: int,
    ) -> tuple[Tensor, Tensor]:
        """The objective's sum and its parts; see Objective.forward."""
        with self._precision.autocast(x_RC.device):
            logits_RK = self.network(x_RC)
        student = Answer(logits_RK, self._reader.take(), self.objective.views)
        total, values_P = self.objective(Step(student, labels_B, sources, indices_B, epoch, epochs))
        return total, values_P

    def release(self) -> None:
        """Detach from the network, which leaves as it came."""
        self._reader.close()
