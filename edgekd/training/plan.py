"""What a training is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from torch import nn

from edgekd.distillation.objective import Objective
from edgekd.documents.recipe import QuantizedTraining, Training
from edgekd.tasks.task import Split, Task
from edgekd.training.precision import Precision


class Phases(Protocol):
    """How a network is set before each epoch's training and before its validation."""

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        """Before the training of `epoch`, which counts from 1."""

    def enter_validation(self, network: nn.Module) -> None:
        """Before a validation."""


@dataclass(frozen=True)
class Plan:
    """All that a training is made of, but for the devices that it runs on."""

    network: nn.Module
    """Trained in place."""
    task: Task
    section: Training | QuantizedTraining
    objective: Objective
    teachers: Mapping[str, nn.Module]
    """The networks that the objective's sources name."""
    phases: Phases
    precision: Precision
    checkpoint_dir: Path
    seed: int
    starts_trained: bool
    """Whether the network as it came is a candidate too, as epoch 0."""
    judged_by: Literal["network", "objective"] = "network"
    """What decides which epoch is the best: the network's answers on the validation split, or the value of
    the objective there, for heads that learn on a frozen network."""
    exit: str | None = None
    """The tap of the exit that will ship of the network, and is judged in its place; None for all of it."""
    watch: Split | None = None
    """Examples on which each epoch's top-1 is noted and nothing is chosen: the test split, where a figure is
    to be put beside one of the literature, which takes the epoch that tests best."""
    scheme: Mapping[str, Any] = field(default_factory=dict)
    """What of the network's quantization no tensor's shape shows, as a JSON value: a checkpoint of another is
    not taken up."""
    rests: bool = False
    """Whether parameters of the network rest in some epochs and have no gradient then."""
