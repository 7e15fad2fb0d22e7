"""Quantization-aware distillation: scales move and then hold; the PTQ student is a candidate."""

from __future__ import annotations

import copy
import dataclasses
import itertools
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Distillation, QuantizedTraining, Training
from edgekd.documents.scheme import Scheme
from edgekd.errors import ConversionError
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import fold_network, prepare
from edgekd.tasks.task import Split, Task
from edgekd.training.evaluate import predict_logits
from edgekd.training.qad import train_quantized
from edgekd.training.result import EpochRecord, TrainingResult
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, make_network, make_task, same_weights

SECTION = QuantizedTraining(epochs=4, batch_size=32, learning_rate=0.02, precision="fp32")
NETWORK = make_network(dropout=0.0)
INT8 = Scheme()
W4_LEARNED = Scheme(weight_bits=4, scales="learned")
NORMALIZED = SECTION.model_copy(update={"batch_norm": "trained", "freeze_batch_norm_after": 0.5})


def quantized_from(student: nn.Module, scheme: Scheme = INT8) -> QuantizedNetwork:
    examples = torch.from_numpy(make_task().normalize(make_task().train.x))
    quantized = prepare(student, examples[:2], scheme)
    calibrate(quantized, [examples])
    return quantized


@cache
def _calibrated(learned: bool) -> QuantizedNetwork:
    return quantized_from(NETWORK, W4_LEARNED if learned else INT8)


def calibrated(*, learned: bool = False) -> QuantizedNetwork:
    return copy.deepcopy(_calibrated(learned))


def train(
    quantized: QuantizedNetwork,
    folder: Path,
    *,
    task: Task | None = None,
    section: QuantizedTraining = SECTION,
    student: nn.Module = NETWORK,
    teacher: nn.Module | None = None,
    listener: Listener | None = None,
    rounding: bool = True,
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
        rounding=rounding,
    )


class ScaleListener(Listener):
    """Keeps the scales after every epoch."""

    def __init__(self, quantized: QuantizedNetwork) -> None:
        super().__init__()
        self.quantized = quantized
        self.scales = [quantized.scales()]
        self.states: list[dict[str, Tensor]] = []

    def on_epoch(self, record: EpochRecord) -> None:
        self.scales.append(self.quantized.scales())
        self.states.append({name: value.clone() for name, value in self.quantized.state_dict().items()})

    def moved(self, ending: str) -> list[bool]:
        """After which epochs a part of the state was other than after the one before."""
        states = [[value for name, value in state.items() if name.endswith(ending)] for state in self.states]
        pairs = itertools.pairwise(states)
        return [not all(map(torch.equal, before, after)) for before, after in pairs]


@pytest.mark.parametrize(("freeze_after", "moving_epochs"), [(0.0, 0), (0.3, 2), (0.5, 2), (1.0, 4)])
def test_scales_follow_the_data_and_then_hold(
    tmp_path: Path, freeze_after: float, moving_epochs: int
) -> None:
    quantized = calibrated()
    listener = ScaleListener(quantized)
    section = SECTION.model_copy(update={"freeze_scales_after": freeze_after})
    train(quantized, tmp_path, section=section, listener=listener)
    moved = [before != after for before, after in zip(listener.scales, listener.scales[1:], strict=False)]
    assert moved == [epoch < moving_epochs for epoch in range(4)]


@pytest.mark.parametrize("ending", ["amax", "scale_O"])
def test_learned_scales_learn_and_then_hold(tmp_path: Path, ending: str) -> None:
    quantized = calibrated(learned=True)
    listener = ScaleListener(quantized)
    train(quantized, tmp_path, listener=listener)
    assert listener.moved(ending) == [True, False, False]
    assert listener.moved("weight") == [True, True, True]


@pytest.mark.parametrize(("freeze_after", "normalizing_epochs"), [(0.0, 0), (0.1, 1), (0.75, 3), (1.0, 4)])
def test_statistics_follow_the_batches_and_then_hold(
    tmp_path: Path, freeze_after: float, normalizing_epochs: int
) -> None:
    quantized = calibrated()
    listener = ScaleListener(quantized)
    section = NORMALIZED.model_copy(update={"freeze_batch_norm_after": freeze_after})
    train(quantized, tmp_path, section=section, listener=listener)
    for statistic in ("running_mean", "running_var"):
        assert listener.moved(statistic) == [epoch <= normalizing_epochs for epoch in (2, 3, 4)]
    assert listener.moved("norm.weight") == [True, True, True]


def test_trained_batch_norm_is_folded_at_the_end(tmp_path: Path) -> None:
    quantized, task = calibrated(), make_task()
    result = train(quantized, tmp_path, section=NORMALIZED)
    assert result.best_epoch > 0
    assert quantized.state_dict().keys() == calibrated().state_dict().keys()
    again = calibrated()
    again.load_state_dict(quantized.state_dict())
    again.set_fake_quantizing(True)
    logits_NK = predict_logits(again, torch.from_numpy(task.normalize(task.validation.x)))
    assert float((logits_NK.argmax(1).numpy() == task.validation.y).mean()) == result.validation_top1


def test_in_floating_point_nothing_is_rounded_and_no_scale_moves(tmp_path: Path) -> None:
    quantized = calibrated(learned=True)
    listener = ScaleListener(quantized)
    result = train(quantized, tmp_path, listener=listener, rounding=False)
    assert listener.moved("amax") == listener.moved("scale_O") == [False, False, False]
    assert quantized.scales() == calibrated(learned=True).scales()
    x = torch.from_numpy(make_task().normalize(make_task().validation.x))
    top1 = float((predict_logits(quantized, x).argmax(1).numpy() == make_task().validation.y).mean())
    assert top1 == result.validation_top1
    folded = fold_network(NETWORK, x[:2])
    folded.load_state_dict(
        {
            name.removeprefix("graph.").replace(".op.", "."): value
            for name, value in quantized.state_dict().items()
            if name.endswith(("weight", "bias"))
        }
    )
    torch.testing.assert_close(predict_logits(quantized, x), predict_logits(folded, x))


def test_a_checkpoint_of_another_rounding_is_not_taken_up(tmp_path: Path) -> None:
    listener = Listener()
    train(calibrated(), tmp_path, rounding=False)
    train(calibrated(), tmp_path, listener=listener)
    assert listener.starts == [(4, 0)]
    assert any("belongs to another training" in warning for warning in listener.warnings)


@pytest.mark.parametrize("section", [SECTION, NORMALIZED])
def test_no_epochs_leave_the_calibrated_student(tmp_path: Path, section: QuantizedTraining) -> None:
    quantized = calibrated()
    result = train(quantized, tmp_path, section=section.model_copy(update={"epochs": 0}))
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


@pytest.mark.parametrize("section", [SECTION, NORMALIZED])
@pytest.mark.parametrize("learned", [False, True])
def test_resumes_to_the_same_bits(tmp_path: Path, learned: bool, section: QuantizedTraining) -> None:
    task = make_task(augmentation=NOISY)
    straight, resumed = calibrated(learned=learned), calibrated(learned=learned)
    train(straight, tmp_path / "straight", task=task, section=section)
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path / "r", task=task, section=section, listener=Listener(die_after=1))
    resumed = calibrated(learned=learned)
    result = train(resumed, tmp_path / "r", task=task, section=section)
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
