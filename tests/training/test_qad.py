"""Quantization-aware distillation: scales move and then hold; the PTQ student is a candidate."""

from __future__ import annotations

import copy
import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.documents.recipe import Distillation, QuantizedTraining, Training
from edgekd.errors import ConversionError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.tasks.task import Split, Task
from edgekd.training.evaluate import predict_logits
from edgekd.training.qad import train_quantized
from edgekd.training.result import EpochRecord, TrainingResult
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, make_network, make_task, same_weights

SECTION = QuantizedTraining(epochs=4, batch_size=32, learning_rate=0.02, precision="fp32")
NETWORK = make_network(dropout=0.0)


def quantized_from(student: nn.Module) -> QuantizedNetwork:
    examples = torch.from_numpy(make_task().normalize(make_task().train.x))
    quantized = prepare(student, examples[:2])
    calibrate(quantized, [examples])
    return quantized


@cache
def _calibrated() -> QuantizedNetwork:
    return quantized_from(NETWORK)


def calibrated() -> QuantizedNetwork:
    return copy.deepcopy(_calibrated())


def train(
    quantized: QuantizedNetwork,
    folder: Path,
    *,
    task: Task | None = None,
    section: QuantizedTraining = SECTION,
    student: nn.Module = NETWORK,
    teacher: nn.Module | None = None,
    listener: Listener | None = None,
) -> TrainingResult:
    return train_quantized(
        quantized,
        task or make_task(),
        section,
        Distillation(),
        student=student,
        teacher=teacher or make_network(3),
        checkpoint_dir=folder,
        seed=0,
        progress=listener,
    )


class ScaleListener(Listener):
    """Keeps the scales after every epoch."""

    def __init__(self, quantized: QuantizedNetwork) -> None:
        super().__init__()
        self.quantized = quantized
        self.scales = [quantized.scales()]

    def on_epoch(self, record: EpochRecord) -> None:
        self.scales.append(self.quantized.scales())


@pytest.mark.parametrize(("freeze_after", "moving_epochs"), [(0.0, 0), (0.5, 2), (0.7, 2), (1.0, 4)])
def test_scales_follow_the_data_and_then_hold(
    tmp_path: Path, freeze_after: float, moving_epochs: int
) -> None:
    quantized = calibrated()
    listener = ScaleListener(quantized)
    section = SECTION.model_copy(update={"freeze_scales_after": freeze_after})
    train(quantized, tmp_path, section=section, listener=listener)
    moved = [before != after for before, after in zip(listener.scales, listener.scales[1:], strict=False)]
    assert moved == [epoch < moving_epochs for epoch in range(4)]


def test_no_epochs_leave_the_calibrated_student(tmp_path: Path) -> None:
    quantized = calibrated()
    result = train(quantized, tmp_path, section=SECTION.model_copy(update={"epochs": 0}))
    assert same_weights(quantized, calibrated())
    assert result.best_epoch == 0
    assert [record.epoch for record in result.history] == [0]
    assert (result.best.loss, result.best.parts) == (None, {})


def test_the_calibrated_student_stays_when_no_epoch_is_better(tmp_path: Path) -> None:
    task = make_task()
    misleading = dataclasses.replace(task, train=Split(task.train.x, np.roll(task.train.y, 1)))
    section = SECTION.model_copy(update={"teacher_weight": 0.0, "self_weight": 0.0, "label_weight": 1.0})
    student = make_network(dropout=0.0)
    training = Training(epochs=6, batch_size=32, learning_rate=0.1)
    train_network(student, task, training, None, teacher=None, checkpoint_dir=tmp_path / "s", seed=0)
    quantized = quantized_from(student)
    expected = copy.deepcopy(quantized)
    result = train(quantized, tmp_path / "q", task=misleading, section=section, student=student)
    assert result.best_epoch == 0
    assert same_weights(quantized, expected)


def test_fine_tuning_lowers_every_part_of_its_objective(tmp_path: Path) -> None:
    quantized = calibrated()
    result = train(quantized, tmp_path, section=SECTION.model_copy(update={"epochs": 8}))
    first, last = result.history[1], result.history[-1]
    assert first.parts.keys() == {"labels", "kd", "self"}
    assert last.loss < first.loss  # type: ignore[operator]
    assert result.best_epoch > 0


def test_resumes_to_the_same_bits(tmp_path: Path) -> None:
    task = make_task(augmentation=NOISY)
    straight, resumed = calibrated(), calibrated()
    train(straight, tmp_path / "straight", task=task)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path / "r", task=task, listener=Listener(die_after=1))
    resumed = calibrated()
    result = train(resumed, tmp_path / "r", task=task)
    assert result.resumed_from == 1
    assert same_weights(straight, resumed)


def test_leaves_a_network_that_is_ready_to_be_judged(tmp_path: Path) -> None:
    quantized, task = calibrated(), make_task()
    result = train(quantized, tmp_path, task=task)
    scales = quantized.scales()
    logits_NK = predict_logits(quantized, torch.from_numpy(task.normalize(task.validation.x)))
    top1 = float((logits_NK.argmax(1).numpy() == task.validation.y).mean())
    assert top1 == result.validation_top1
    assert not quantized.training
    assert quantized.scales() == scales


def test_student_and_teacher_are_left_as_they_are(tmp_path: Path) -> None:
    student, teacher = make_network(dropout=0.0), make_network(3)
    before = copy.deepcopy((student, teacher))
    train(calibrated(), tmp_path, student=student, teacher=teacher)
    assert same_weights(student, before[0])
    assert same_weights(teacher, before[1])


def test_bf16_keeps_the_grid_in_fp32(tmp_path: Path) -> None:
    quantized = calibrated()
    result = train(quantized, tmp_path, section=SECTION.model_copy(update={"precision": "bf16"}))
    assert result.precision == "bf16, channels last"
    assert all(value.dtype == torch.float32 for value in quantized.parameters())


def test_an_uncalibrated_network_is_refused(tmp_path: Path) -> None:
    quantized = prepare(NETWORK, torch.zeros(2, 1, 8, 8))
    with pytest.raises(ConversionError, match="have no scale"):
        train(quantized, tmp_path)
