"""Epochs are judged by what ships: the whole network, or the exit."""

from __future__ import annotations

from pathlib import Path

import torch

from edgekd.distillation.exits import early_exit, trained_exit
from edgekd.documents.recipe import Distillation, Training
from edgekd.documents.terms.own import ExitsTerm
from edgekd.networks.network import build_network
from edgekd.training.evaluate import predict_logits
from edgekd.training.setting import setting_of
from edgekd.training.trainer import train_network
from tests.training.cases import make_task


def test_an_exit_that_ships_is_judged_in_the_place_of_the_network(tmp_path: Path) -> None:
    task = make_task(train=192)
    torch.manual_seed(0)
    network = build_network("resnet8", in_channels=1, num_classes=3, input_shape=(1, 8, 8))
    training = Training(epochs=4, batch_size=32, learning_rate=0.02)
    distillation = Distillation(label_weight=1.0, terms=(ExitsTerm(kind="exits"),))
    options = {"teacher": None, "checkpoint_dir": tmp_path, "seed": 0, "exit": "stage1"}
    result = train_network(network, task, training, distillation, **options)  # type: ignore[arg-type]
    role = setting_of(network, {}, task).student
    shipped = early_exit(network, "stage1", trained_exit(result.heads, role, "stage1", 3))
    x_NC = torch.from_numpy(task.normalize(task.validation.x))

    def top1(logits_NK: torch.Tensor) -> float:
        return float((logits_NK.argmax(1).numpy() == task.validation.y).mean())

    assert result.validation_top1 == top1(predict_logits(shipped, x_NC))
    assert result.validation_top1 != top1(predict_logits(network, x_NC))
