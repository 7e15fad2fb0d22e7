"""Train a head on the frozen teacher, before the student: the second of SSKD's three stages.

The teacher stands in the student's place and does not learn: its weights and batch statistics stay as they
are. The epoch whose head has the lowest loss on the validation split, without augmentation, is kept.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from edgekd.distillation.frozen_heads import HeadedTerm, build_head_objective, head_state
from edgekd.distillation.setting import State
from edgekd.distillation.step import TEACHER
from edgekd.tasks.task import Task
from edgekd.training.data import derive_seed
from edgekd.training.launch import run_plan
from edgekd.training.plan import Plan
from edgekd.training.precision import resolve_precision
from edgekd.training.progress import Progress, Silent
from edgekd.training.result import TrainingResult
from edgekd.training.setting import setting_of


@dataclass(frozen=True)
class FrozenPhases:
    """Evaluation mode throughout: no dropout, and batch statistics that stay."""

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        """Evaluation mode."""
        network.eval()

    def enter_validation(self, network: nn.Module) -> None:
        """Evaluation mode."""
        network.eval()


def train_heads(
    teacher: nn.Module,
    task: Task,
    section: HeadedTerm,
    *,
    checkpoint_dir: Path,
    seed: int,
    progress: Progress | None = None,
) -> tuple[State, TrainingResult]:
    """Train the head of a term on the frozen teacher, or take up an interrupted training.

    Args:
        teacher: left as it is.
        task: its training and validation splits are used, its test split is not.
        section: the term's; says how its head is trained.
        checkpoint_dir: a folder for the checkpoints of this training alone.
        seed: of the initial head, the order and the augmentation.
        progress: hears how it goes; None says nothing.

    Returns:
        The head of the best epoch, for `train_network(heads={section.kind: state})`, and how it went.

    Raises:
        DivergedError: the loss is no longer finite; names the step.
        NetworkError: the teacher does not give one logit a class.
        UsageError: the teacher or the task lacks a tap or a view.
        StorageError: a checkpoint cannot be written.
    """
    frozen = copy.deepcopy(teacher).eval().requires_grad_(False)
    training = section.head_training
    setting = setting_of(frozen, {TEACHER: frozen}, task)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "teacher's heads"))
        objective = build_head_objective(section, setting)
    plan = Plan(
        network=frozen,
        task=task,
        section=training,
        objective=objective,
        teachers={},
        phases=FrozenPhases(),
        precision=resolve_precision(training.precision, task.input_shape, frozen),
        checkpoint_dir=checkpoint_dir,
        seed=seed,
        starts_trained=False,
        judged_by="objective",
    )
    result = run_plan(plan, progress=progress or Silent(), devices=training.devices)
    return head_state(section, result.heads), result
