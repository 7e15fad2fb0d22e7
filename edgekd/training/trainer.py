"""Train a network in floating point: a teacher from its labels, a student from labels and a teacher."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgekd.distillation.objective import LABELS_ONLY, Objective, build_objective
from edgekd.distillation.setting import Setting, State
from edgekd.distillation.step import TEACHER
from edgekd.documents.recipe import Devices, Distillation, Training
from edgekd.tasks.task import Split, Task
from edgekd.training.data import derive_seed
from edgekd.training.launch import run_plan
from edgekd.training.plan import Plan
from edgekd.training.precision import resolve_precision
from edgekd.training.progress import Progress, Silent
from edgekd.training.result import EpochRecord, TrainingResult
from edgekd.training.setting import setting_of

__all__ = ["EpochRecord", "TrainingResult", "train_network"]


@dataclass(frozen=True)
class FloatPhases:
    """Dropout and batch statistics in training, none in validation."""

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        """Training mode, in every epoch."""
        network.train()

    def enter_validation(self, network: nn.Module) -> None:
        """Evaluation mode."""
        network.eval()


def train_network(
    network: nn.Module,
    task: Task,
    training: Training,
    distillation: Distillation | None,
    *,
    teacher: nn.Module | None,
    checkpoint_dir: Path,
    seed: int,
    progress: Progress | None = None,
    devices: Devices = "auto",
    heads: Mapping[str, State] = {},
    watch: Split | None = None,
    exit: str | None = None,
) -> TrainingResult:
    """Train, or take up an interrupted training, and leave the weights that validate best in `network`.

    With the same arguments, initial weights and number of threads the weights are the same bit for bit on a
    CPU, however often the training was interrupted.

    Args:
        network: takes (B, *task.input_shape) float32, gives logits (B, K); changed in place, ends on the CPU.
        task: its training and validation splits are used, its test split is not.
        training: how to train.
        distillation: the objective; None learns from the labels alone.
        teacher: needed by the objective's terms; left as it is.
        checkpoint_dir: a folder for the checkpoints of this training alone.
        seed: of the order, the augmentation and dropout; the initial weights are the caller's.
        progress: hears how it goes; None says nothing.
        devices: how many GPUs, or how many processes where there is no GPU; `auto` is one.
        heads: kind of a term -> state of its head on the frozen teacher, for the terms that need one.
        exit: tap of the exit that will ship, by which epochs are judged; None judges the whole network.
        watch: examples whose top-1 each epoch's record notes, and that nothing is chosen on; None for none.

    Raises:
        DivergedError: the loss is no longer finite; names the step.
        NetworkError: network or teacher does not give one logit a class.
        UsageError: a term needs a teacher, a tap, a view or a batch size, and it is not there.
        StorageError: a checkpoint cannot be written.
    """
    setting = setting_of(network, {TEACHER: teacher}, task, heads=heads)
    objective = objective_for(setting, training, distillation, seed=seed)
    plan = Plan(
        network=network,
        task=task,
        section=training,
        objective=objective,
        teachers={name: setting.sources[name].network for name in objective.sources},
        phases=FloatPhases(),
        precision=resolve_precision(training.precision, task.input_shape, network),
        checkpoint_dir=checkpoint_dir,
        seed=seed,
        starts_trained=False,
        exit=exit,
        watch=watch,
    )
    return run_plan(plan, progress=progress or Silent(), devices=devices)


def objective_for(
    setting: Setting, training: Training, distillation: Distillation | None, *, seed: int
) -> Objective:
    """The objective of a training; the initial weights of its heads follow from the seed.

    Raises:
        UsageError: a term needs a tap, a view, a source or a shape that is not there.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "heads"))
        return build_objective(distillation or LABELS_ONLY, setting, label_smoothing=training.label_smoothing)
