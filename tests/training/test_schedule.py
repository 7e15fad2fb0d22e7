"""The learning rate of every step, against an independent statement."""

from __future__ import annotations

import math

import pytest

from edgekd.documents.recipe import QuantizedTraining, Training
from edgekd.training.schedule import schedule_of


def rates(section: Training | QuantizedTraining, *, steps_per_epoch: int) -> list[float]:
    schedule = schedule_of(section, steps_per_epoch=steps_per_epoch)
    return [schedule.learning_rate(step) for step in range(schedule.steps)]


def test_warm_up_rises_in_a_line_to_the_peak() -> None:
    section = Training(epochs=10, learning_rate=0.4, warmup_epochs=2.0)
    assert rates(section, steps_per_epoch=2)[:5] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


def test_cosine_falls_from_the_peak_to_one_percent() -> None:
    found = rates(Training(epochs=5, learning_rate=2.0, warmup_epochs=0), steps_per_epoch=3)
    expected = [2.0 * (0.01 + 0.99 * (1 + math.cos(math.pi * i / 14)) / 2) for i in range(15)]
    assert found == pytest.approx(expected)
    assert found[0] == 2.0
    assert found[-1] == pytest.approx(0.02)


def test_steps_fall_at_the_milestones() -> None:
    section = Training(
        epochs=5, learning_rate=1.0, warmup_epochs=0, schedule="step", milestones=(2, 4), gamma=0.5
    )
    assert rates(section, steps_per_epoch=2) == [1.0] * 4 + [0.5] * 4 + [0.25] * 2


def test_quantized_training_has_no_warm_up() -> None:
    found = rates(QuantizedTraining(epochs=2, learning_rate=1e-3), steps_per_epoch=4)
    assert found[0] == 1e-3
    assert found == sorted(found, reverse=True)
    assert found[-1] == pytest.approx(1e-5)


def test_warm_up_longer_than_the_training_never_exceeds_the_peak() -> None:
    found = rates(Training(epochs=1, learning_rate=0.1, warmup_epochs=5.0), steps_per_epoch=4)
    assert found == pytest.approx([0.025, 0.05, 0.075, 0.1])


def test_a_training_of_one_step_takes_the_peak() -> None:
    assert rates(Training(epochs=1, learning_rate=0.1, warmup_epochs=0), steps_per_epoch=1) == [0.1]
