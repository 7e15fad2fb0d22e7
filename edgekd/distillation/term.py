"""What a term is: one summand of the objective, and what it needs of a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.distillation.step import Step
from edgekd.documents.views import WEAK


@dataclass(frozen=True)
class Survey:
    """The training split as the teaching networks see it, for what a term must know before the first step."""

    labels_N: Tensor
    """(N,), int64, on the training device."""
    features: Callable[[str, str], Tensor]
    """(source, tap) -> (N, ...) float32 features of every example, without augmentation."""


class Term(nn.Module):
    """One summand of the objective: a function of the step.

    Parameters (heads) learn together with the student, buffers (memories) travel in checkpoints; neither is
    part of the student that ships. A term sets in its constructor what it reads:
    """

    sources: tuple[str, ...] = ()
    """Names of the teaching networks."""
    views: tuple[str, ...] = (WEAK,)
    """Views of the batch."""
    student_taps: tuple[str, ...] = ()
    """Taps of the student."""
    source_taps: tuple[str, ...] = ()
    """Taps of every source."""
    smallest_batch: int = 1
    """Examples without which it has no value."""
    warmup_epochs: int = 0
    """Epochs before which it does not do what it is there for; a training must be longer."""

    reads_labels: bool = False
    """Whether it reads labels, which an unlabeled example does not have."""
    memory: tuple[str, ...] = ()
    """Names of the buffers that hold something of every training example."""

    def prepare(self, survey: Survey) -> None:
        """Look at the training split once, before the first step."""

    def forward(self, step: Step) -> Tensor:
        """The term's value: a scalar, float32 (or float64), the mean over the examples."""
        raise NotImplementedError


class RowTerm(Term):
    """A term that has a value for each example by itself; its value is their mean."""

    def rows(self, step: Step) -> Tensor:
        """The value of each example, (B,), float32 or float64."""
        raise NotImplementedError

    def forward(self, step: Step) -> Tensor:
        """Mean of `rows`."""
        return self.rows(step).mean()
