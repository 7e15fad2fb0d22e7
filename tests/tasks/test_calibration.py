"""Calibration data that cannot be right are refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgekd.documents.recipe import DigitsTask
from edgekd.errors import DataError
from edgekd.tasks.calibration import check_calibration, read_calibration
from edgekd.tasks.digits import digits_task
from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task


@cache
def digits() -> Task:
    return digits_task(DigitsTask(), seed=0)


def good(count: int = 64) -> NDArray[np.float32]:
    return digits().normalize(digits().test.x[:count])


def refusal(x: NDArray[np.float32]) -> str:
    with pytest.raises(DataError) as caught:
        check_calibration(x, digits())
    return str(caught.value)


def test_real_examples_pass_whatever_they_show() -> None:
    task = digits()
    x = task.normalize(task.test.x)
    for label in range(10):
        assert check_calibration(x[task.test.y == label], task) == ()
    for count in (1, 2, 8, 256):
        for start in (0, 50, 200):
            assert check_calibration(x[start : start + count], task) == ()


def test_as_dark_as_no_training_example_passes_too() -> None:
    assert check_calibration(good() - np.float32(0.2), digits()) == ()


def with_value(value: float) -> NDArray[np.float32]:
    x = good(8)
    x[3, 0, 2, 5] = value
    return x


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (good(0), "there are no examples to calibrate with"),
        (np.zeros((4, 8, 8), np.float32), "an example has shape (8, 8); the network takes (1, 8, 8)"),
        (good().transpose(0, 2, 3, 1), "an example has shape (8, 8, 1); the network takes (1, 8, 8)"),
        (good().astype(np.float64), "examples are float64; the network takes float32"),
        (digits().test.x[:9], "examples are uint8; the network takes float32"),
        (
            with_value(np.nan),
            "calibration: x has 1 values that are NaN, infinite or beyond float32, the first in example 3",
        ),
        (
            np.full((5, 1, 8, 8), 0.5, np.float32),
            "every value of the 5 examples is 0.5\n  try: give examples as different as those that will come",
        ),
        (
            np.repeat(good(1), 7, axis=0),
            "all 7 examples are the same one\n  try: give examples as different as those that will come",
        ),
        (
            digits().test.x[:64].astype(np.float32),
            "the largest value of an example is 16 (median of 64); that of a training example, normalized, "
            "is 1.51 to 1.85\n  try: normalize them as the training examples were",
        ),
        (
            good() - 3,
            "the largest value of an example is -1.15 (median of 64); that of a training example, "
            "normalized, is 1.51 to 1.85\n  try: normalize them as the training examples were",
        ),
    ],
)
def test_what_cannot_be_right_is_refused(x: NDArray[np.float32], message: str) -> None:
    assert refusal(x) == f"calibration data: {message}"


def noise(amplitude: NDArray[np.float32] | float = 2.0, count: int = 200) -> NDArray[np.float32]:
    """Examples between -amplitude and amplitude, which they reach."""
    x = np.random.default_rng(0).uniform(-1, 1, (count, 1, 8, 8)).astype(np.float32)
    x[:, 0, 0, :2] = -1, 1
    return x * np.float32(amplitude) if isinstance(amplitude, float) else x * amplitude


def task_of(x: NDArray[np.float32]) -> Task:
    y = np.arange(len(x)) % 2
    return make_task(
        "noise", train=(x, y), test=(x[:4], y[:4]), layout="NCHW", validation_fraction=0.1, seed=0
    )


@pytest.mark.parametrize("what", ["largest value", "least value", "mean", "standard deviation"])
def test_every_statistic_can_refuse(what: str) -> None:
    task, x = task_of(noise()), noise(count=20)
    match what:
        case "largest value":
            x[:, 0, 0, 1] = 3
        case "least value":
            x[:, 0, 0, 0] = -3
        case "mean":
            x[:, 0, 1:] = 1.5
        case _:
            x[:, 0, 1:] = 0
    with pytest.raises(DataError) as caught:
        check_calibration(task.normalize(x), task)
    assert str(caught.value).startswith(f"calibration data: the {what} of an example is ")


def test_half_of_the_examples_must_be_beyond() -> None:
    x = good(64)
    x[:31] *= 10
    assert check_calibration(x, digits())[:1] == (
        "calibration examples spread 7.1 times as wide as training examples: are they in the same units?",
    )
    x[31:40] *= 10
    assert refusal(x).startswith("calibration data: the largest value of an example is 18.5 ")


def test_a_narrow_spread_is_told_unless_there_are_few_examples() -> None:
    """The quiet half of the training examples."""
    amplitude = np.where(np.arange(200) % 2, 0.2, 2).astype(np.float32).reshape(-1, 1, 1, 1)
    task = task_of(noise(amplitude))
    quiet = task.normalize(noise(0.2, count=8))
    assert check_calibration(quiet, task) == (
        "calibration examples spread 0.14 times as wide as training examples: are they in the same units?",
    )
    assert check_calibration(quiet[:7], task) == ()


def written(tmp_path: Path, x: NDArray[np.generic]) -> Path:
    path = tmp_path / "calibration.npz"
    np.savez(path, x=x)
    return path


def test_a_file_is_normalized_as_the_training_file(tmp_path: Path) -> None:
    raw = digits().test.x[:20, 0]
    x = read_calibration(written(tmp_path, raw), digits(), layout="NHW")
    np.testing.assert_array_equal(x, good(20))
    channels_last = written(tmp_path, raw[..., np.newaxis])
    np.testing.assert_array_equal(read_calibration(channels_last, digits(), layout="NHWC"), good(20))
    assert check_calibration(x, digits()) == ()


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            digits().test.x[:4, 0].astype(np.float32),
            "calibration examples are float32; those of training are uint8\n"
            "  try: give them in the units of the training file: edgekd normalizes them itself",
        ),
        (np.zeros((4, 9, 8), np.uint8), "an example has shape (1, 9, 8); the network takes (1, 8, 8)"),
        (np.zeros((4, 8), np.uint8), "calibration: x has shape (4, 8); layout NHW has 3 axes"),
        (np.zeros((0, 8, 8), np.uint8), "calibration: x has shape (0, 8, 8), which is empty"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path: Path, x: NDArray[np.generic], message: str) -> None:
    path = written(tmp_path, x)
    with pytest.raises(DataError) as caught:
        read_calibration(path, digits(), layout="NHW")
    assert str(caught.value) == f"{path}: {message}"


def test_a_file_without_examples_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "calibration.npz"
    np.savez(path, y=np.zeros(3))
    with pytest.raises(DataError) as caught:
        read_calibration(path, digits(), layout="NHW")
    assert str(caught.value) == f"{path}: has no x; it holds y"
