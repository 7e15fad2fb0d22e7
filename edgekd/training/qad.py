"""Quantization-aware distillation: fine-tune a calibrated student with fake quantization in the loop.

    loss = label_weight * CE + teacher_weight * terms(teacher) + self_weight * KD(the student in fp32)

Statistics of batch norm, where it is not folded from the start, follow the batches for the first part of the
epochs (`freeze_batch_norm_after`), and scales move for a longer one (`freeze_scales_after`): following the
data, or learned. Then they hold still, so that the weights settle on the grid that will ship. The calibrated
student is a candidate too (epoch 0): fine-tuning never makes what ships worse on validation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
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
    """Scales that move for the first `moving_epochs`, statistics for the first `normalizing_epochs`."""

    moving_epochs: int
    normalizing_epochs: int = 0
    rounding: bool = True
    """Whether there is fake quantization at all."""

    @classmethod
    def of(cls, section: QuantizedTraining, *, rounding: bool = True) -> QuantizedPhases:
        """The phases of a fine-tuning; an epoch of which a part is wanted counts in full."""
        return cls(
            moving_epochs=_epochs(section.freeze_scales_after, section),
            normalizing_epochs=_epochs(section.freeze_batch_norm_after, section),
            rounding=rounding,
        )

    def enter_training(self, network: nn.Module, *, epoch: int) -> None:
        """Training mode; scales and statistics move until they are frozen."""
        quantized = cast(QuantizedNetwork, network)
        quantized.train()
        quantized.set_fake_quantizing(self.rounding)
        quantized.set_observing(self.rounding and epoch <= self.moving_epochs)
        quantized.set_normalizing(epoch <= self.normalizing_epochs)

    def enter_validation(self, network: nn.Module) -> None:
        """Evaluation mode; validation examples never move a scale or a statistic."""
        quantized = cast(QuantizedNetwork, network)
        quantized.eval()
        quantized.set_fake_quantizing(self.rounding)
        quantized.set_observing(False)
        quantized.set_normalizing(False)


def _epochs(part: float, section: QuantizedTraining) -> int:
    return math.ceil(part * section.epochs - 1e-9)


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
    rounding: bool = True,
) -> TrainingResult:
    """Fine-tune, or take up an interrupted fine-tuning; the state that validates best stays in `quantized`.

    Args:
        quantized: the calibrated student, on the CPU, with the saturation of what will ship; changed in
            place, ends with scales that hold still and batch norm folded: its state has the form it came in.
        task: its training and validation splits are used, its test split is not.
        section: how to fine-tune; 0 epochs leave the calibrated student.
        distillation: the terms that learn from the teacher; their label_weight is not used here.
        student: the same student in fp32, the source `self`; left as it is.
        teacher: needed by the terms; left as it is.
        checkpoint_dir: a folder for the checkpoints of this training alone.
        seed: of the order, the augmentation and dropout.
        progress: hears how it goes; None says nothing.
        devices: how many GPUs, or how many processes where there is no GPU; `auto` is one.
        rounding: False fine-tunes the same network in floating point, as a control.

    Raises:
        DivergedError: the loss is no longer finite; names the step.
        NetworkError: a network does not give one logit a class.
        UsageError: a term needs a teacher and there is none.
        StorageError: a checkpoint cannot be written.
    """
    phases = QuantizedPhases.of(section, rounding=rounding)
    if section.batch_norm == "trained":
        quantized.unfold_batch_norm(student, torch.from_numpy(task.normalize(task.train.x[:2])))
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
        scheme={"rounding": rounding, **quantized.fingerprint},
        rests=quantized.learned,
    )
    result = run_plan(plan, progress=progress or Silent(), devices=devices)
    quantized.fold_batch_norm()
    phases.enter_validation(quantized)
    return result
