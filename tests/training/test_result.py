"""Which of two epochs is better."""

from __future__ import annotations

import pytest

from edgekd.training.result import EpochRecord


def record(top1: float, loss: float, epoch: int = 1) -> EpochRecord:
    return EpochRecord(epoch, 0.1, 1.0, {}, validation_loss=loss, validation_top1=top1, seconds=1.0)


@pytest.mark.parametrize(
    ("top1", "loss", "better"),
    [(0.9, 1.0, False), (0.91, 9.0, True), (0.89, 0.1, False), (0.9, 0.99, True), (0.9, 1.01, False)],
)
def test_top1_decides_and_then_the_loss(top1: float, loss: float, better: bool) -> None:
    assert record(top1, loss, epoch=2).is_better_than(record(0.9, 1.0)) is better
