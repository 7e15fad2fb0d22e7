"""The losses of an epoch: their means, and the first that is no number."""

from __future__ import annotations

import pytest
import torch
from lightning_fabric import Fabric
from torch import Tensor

from edgekd.distillation.objective import build_objective
from edgekd.documents.recipe import Distillation, KDTerm
from edgekd.errors import DivergedError
from edgekd.training.loss_log import LossLog
from tests.distillation.steps import SETTING


@pytest.fixture
def log() -> LossLog:
    objective = build_objective(
        Distillation(label_weight=0.5, terms=(KDTerm(weight=2.0, decay="linear"),)), SETTING
    )
    fabric = Fabric(accelerator="cpu", devices=1)
    return LossLog(fabric, objective, epoch=3, epochs=4, first_step=101, hint="less")


def loss(labels: float, kd: float) -> Tensor:
    return torch.tensor([labels, kd])


def test_means_over_the_steps(log: LossLog) -> None:
    log.add(loss(1.0, 4.0))
    log.add(loss(3.0, 0.0))
    assert log.means() == (0.5 * 2.0 + 2.0 * (1 - 2 / 4) * 2.0, {"labels": 2.0, "kd": 2.0})


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        ((float("nan"), 1.0), "nan at step 103 (epoch 3), first in the part 'labels': labels=nan, kd=1"),
        ((2.5, float("inf")), "inf at step 103 (epoch 3), first in the part 'kd': labels=2.5, kd=inf"),
    ],
)
def test_the_first_bad_step_is_named(log: LossLog, bad: tuple[float, float], text: str) -> None:
    for values in ((1.0, 1.0), (1.0, 1.0), bad, (float("nan"), float("nan"))):
        log.add(loss(*values))
    with pytest.raises(DivergedError) as caught:
        log.means()
    assert str(caught.value) == f"the loss became {text}\n  try: less"


def test_a_long_epoch_is_read_on_the_way(log: LossLog) -> None:
    def steps() -> int:
        for step in range(1000):
            log.add(loss(float("nan") if step == 5 else 1.0, 1.0))
        return 1000

    with pytest.raises(DivergedError, match=r"at step 106 \(epoch 3\)"):
        steps()


def test_a_read_on_the_way_does_not_change_the_means(log: LossLog) -> None:
    for step in range(300):
        log.add(loss(float(step), 0.0))
    assert log.means()[1]["labels"] == pytest.approx(149.5)


def test_where_every_part_is_bad_the_step_before_tells_which_was_too_large(log: LossLog) -> None:
    log.add(loss(2.0, 300.0))
    log.add(loss(float("nan"), float("nan")))
    with pytest.raises(DivergedError) as caught:
        log.means()
    assert str(caught.value) == (
        "the loss became nan at step 102 (epoch 3), in every part; in the step before the largest was 'kd', "
        "300 with its weight: labels=nan, kd=nan\n  try: less"
    )
