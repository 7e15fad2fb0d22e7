"""A watched split: its top-1 is noted after each epoch, and nothing else changes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from edgekd.documents.recipe import Training
from edgekd.tasks.task import Split
from edgekd.training.evaluate import predict_logits
from edgekd.training.result import TrainingResult
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, TinyConvNet, make_network, make_task, same_weights

TRAINING = Training(epochs=4, batch_size=32, learning_rate=0.2, precision="fp32")
TASK = make_task(augmentation=NOISY)


def train(
    folder: Path, watch: Split | None, listener: Listener | None = None, training: Training = TRAINING
) -> tuple[TinyConvNet, TrainingResult]:
    network = make_network()
    result = train_network(
        network,
        TASK,
        training,
        None,
        teacher=None,
        checkpoint_dir=folder,
        seed=0,
        progress=listener,
        watch=watch,
    )
    return network, result


def test_a_record_holds_the_top1_of_its_epoch(tmp_path: Path) -> None:
    once = TRAINING.model_copy(update={"epochs": 1})
    network, result = train(tmp_path, TASK.test, training=once)
    logits_NK = predict_logits(network, torch.from_numpy(TASK.normalize(TASK.test.x)))
    assert result.best.watched_top1 == float((logits_NK.argmax(1).numpy() == TASK.test.y).mean())
    assert result.summary()["history"][0]["watched_top1"] == result.best.watched_top1


def test_nothing_is_chosen_on_it(tmp_path: Path) -> None:
    wrong = dataclasses.replace(TASK.test, y=(TASK.test.y + 1) % 3)  # best where the network is worst
    plain, unwatched = train(tmp_path / "plain", None)
    watched, result = train(tmp_path / "watched", wrong)
    assert same_weights(plain, watched)
    assert result.best_epoch == unwatched.best_epoch
    assert len({record.watched_top1 for record in result.history}) > 1
    assert [record.watched_top1 for record in unwatched.history] == [None] * 4


def test_no_epoch_lacks_it_after_a_resumption(tmp_path: Path) -> None:
    _, expected = train(tmp_path / "straight", TASK.test)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", TASK.test, Listener(die_after=2))
    _, result = train(tmp_path / "resumed", TASK.test)
    assert result.resumed_from == 2
    assert [one.watched_top1 for one in result.history] == [one.watched_top1 for one in expected.history]


def test_checkpoints_of_an_unwatched_training_are_not_taken_up(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, None, Listener(die_after=2))
    _, result = train(tmp_path, TASK.test)
    assert result.resumed_from is None
    assert None not in [record.watched_top1 for record in result.history]
