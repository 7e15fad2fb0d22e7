"""Quantization-aware distillation: fine-tune a calibrated student with fake quantization in the loop.

    loss = label_weight * CE + teacher_weight * terms(teacher) + self_weight * KD(the student in fp32)

Batch norm is folded already. Activation scales follow the data for the first part of the epochs
(`freeze_scales_after`) and then hold still, so that the weights settle on the grid that will ship. The
calibrated student is a candidate too (epoch 0): fine-tuning never makes what ships worse on validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from torch import nn

from edgekd.distillation.objective import build_quantized_objective
from edgekd.distillation.step import SELF, TEACHER
from edgekd.documents.recipe import Devices, Distillation, QuantizedTraining
from edgekd.quantization.network import QuantizedNetwork
from edgekd.tasks.task import Task
from edgekd.training.launch import run_plan
from edgekd.training.plan import Plan
from edgekd.training.precision import resolve_precision
from edgekd.training.progress import Progress, Silent
from edgekd.training.result import TrainingResult
from edgekd.training.setting import setting_of


@dataclass(frozen=True)
class QuantizedPhases:
    """Fake quantization throughout; scales that move for the first `moving_epochs`."""

    moving_epochs: int

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        """Training mode; observers on until the scales are frozen."""
        quantized = cast(QuantizedNetwork, network)
        quantized.train()
        quantized.set_fake_quantizing(True)
        quantized.set_observing(epoch <= self.moving_epochs)

    def enter_validation(self, network: nn.Module) -> None:
        """Evaluation mode; validation examples never move a scale."""
        quantized = cast(QuantizedNetwork, network)
        quantized.eval()
        quantized.set_fake_quantizing(True)
        quantized.set_observing(False)


def train_quantized(
    quantized: QuantizedNetwork,
    task: Task,
    section: QuantizedTraining,
    distillation: Distillation,
    *,
    student: nn.Module,
    teacher: nn.Module | None,
    checkpoint_dir: Path,
    seed: int,
    progress: Progress | None = None,
    devices: Devices = "auto",
) -> TrainingResult:
    """Fine-tune, or take up an interrupted fine-tuning; the state that validates best stays in `quantized`.

    Args:
        quantized: the calibrated student; changed in place, ends on the CPU with observers off.
        task: its training and validation splits are used, its test split is not.
        section: how to fine-tune; 0 epochs leave the calibrated student.
        distillation: the terms that learn from the teacher; their label_weight is not used here.
        student: the same student in fp32, the source `self`; left as it is.
        teacher: needed by the terms; left as it is.
        checkpoint_dir: a folder for the checkpoints of this training alone.
        seed: of the order, the augmentation and dropout.
        progress: hears how it goes; None says nothing.
        devices: how many GPUs, or how many processes where there is no GPU; `auto` is one.

    Raises:
        DivergedError: the loss is no longer finite; names the step.
        NetworkError: a network does not give one logit a class.
        UsageError: a term needs a teacher and there is none.
        StorageError: a checkpoint cannot be written.
    """
    phases = QuantizedPhases(moving_epochs=math.floor(section.freeze_scales_after * section.epochs))
    phases.enter_validation(quantized)
    setting = setting_of(quantized, {TEACHER: teacher, SELF: student}, task)
    objective = build_quantized_objective(section, distillation, setting)
    plan = Plan(
        network=quantized,
        task=task,
        section=section,
        objective=objective,
        teachers={name: setting.sources[name].network for name in objective.sources},
        phases=phases,
        precision=resolve_precision(section.precision, task.input_shape, quantized),
        checkpoint_dir=checkpoint_dir,
        seed=seed,
        starts_trained=True,
    )
    result = run_plan(plan, progress=progress or Silent(), devices=devices)
    phases.enter_validation(quantized)
    return result
