"""Training in floating point: learns, resumes to the same bits, keeps the best, says what went wrong."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.kd import kd_rows
from edgekd.documents.recipe import Augmentation, Distillation, Training
from edgekd.errors import DivergedError, NetworkError, UsageError
from edgekd.tasks.augment import augment
from edgekd.tasks.task import Split, Task
from edgekd.training.data import derive_seed, epoch_order
from edgekd.training.evaluate import predict_logits
from edgekd.training.result import TrainingResult
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, make_network, make_task, same_weights

TRAINING = Training(epochs=4, batch_size=32, learning_rate=0.05, precision="fp32")


def train(
    network: nn.Module,
    folder: Path,
    *,
    task: Task | None = None,
    training: Training = TRAINING,
    distillation: Distillation | None = None,
    teacher: nn.Module | None = None,
    listener: Listener | None = None,
    seed: int = 0,
) -> TrainingResult:
    return train_network(
        network,
        task or make_task(augmentation=NOISY),
        training,
        distillation,
        teacher=teacher,
        checkpoint_dir=folder,
        seed=seed,
        progress=listener,
    )


def top1(network: nn.Module, task: Task, split: Split) -> float:
    logits_NK = predict_logits(network, torch.from_numpy(task.normalize(split.x)))
    return float((logits_NK.argmax(1).numpy() == split.y).mean())


def test_learns_the_task(tmp_path: Path) -> None:
    task, network = make_task(train=192), make_network()
    training = Training(epochs=10, batch_size=32, learning_rate=0.1)
    result = train(network, tmp_path, task=task, training=training)
    assert top1(network, task, task.test) > 0.9
    assert result.history[-1].loss < result.history[0].loss / 3  # type: ignore[operator]
    assert [record.epoch for record in result.history] == list(range(1, 11))


def test_the_student_learns_from_its_teacher_alone(tmp_path: Path) -> None:
    task, teacher = make_task(train=192), make_network()
    training = Training(epochs=10, batch_size=32, learning_rate=0.1)
    train(teacher, tmp_path / "teacher", task=task, training=training)
    wrong = dataclasses.replace(task, train=Split(task.train.x, np.roll(task.train.y, 1)))
    student = make_network(2)
    distillation = Distillation(label_weight=0.0)
    train(student, tmp_path, task=wrong, training=training, distillation=distillation, teacher=teacher)
    assert top1(student, task, task.test) > 0.85


def test_agrees_with_the_loop_written_out(tmp_path: Path) -> None:
    task = make_task(augmentation=Augmentation(crop=1))
    training = Training(epochs=2, batch_size=32, learning_rate=0.05, momentum=0.8, weight_decay=0.01)
    trained, expected, teacher = make_network(dropout=0.0), make_network(dropout=0.0), make_network(3).eval()
    train(trained, tmp_path, task=task, training=training, distillation=Distillation(), teacher=teacher)
    x_NC, y_N = torch.from_numpy(task.normalize(task.train.x)), torch.from_numpy(task.train.y)
    decayed = [parameter for parameter in expected.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in expected.parameters() if parameter.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": others}]
    optimizer = torch.optim.SGD(groups, momentum=0.8, nesterov=True)
    rates = [0.05 * step / 3 for step in (1, 2, 3)] + [0.05, 0.05 * (0.01 + 0.99 / 2), 0.05 * 0.01]
    for epoch in (1, 2):
        views = torch.Generator().manual_seed(derive_seed(0, "views", epoch, 0))
        for step, indices_B in enumerate(epoch_order(96, steps=3, seed=0, epoch=epoch)):
            background_C = torch.from_numpy(task.background)
            x_BC = augment(x_NC[indices_B], task.augmentation, views, background_C=background_C)
            logits_BK = expected(x_BC)
            kd = kd_rows(logits_BK, teacher(x_BC), temperature=4.0).mean()
            loss = 0.1 * nn.functional.cross_entropy(logits_BK, y_N[indices_B]) + 0.9 * kd
            optimizer.zero_grad()
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = rates[3 * (epoch - 1) + step]
            optimizer.step()
    for found, wanted in zip(trained.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("die_after", [1, 2, 3, 4])
def test_a_resumed_training_ends_with_the_same_bits(
    tmp_path: Path, precision: Literal["fp32", "bf16"], die_after: int
) -> None:
    training = TRAINING.model_copy(update={"precision": precision})
    teacher = make_network(3)
    straight, resumed = make_network(), make_network()
    options = {"training": training, "distillation": Distillation(), "teacher": teacher}
    expected = train(straight, tmp_path / "straight", **options)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path / "r", listener=Listener(die_after=die_after), **options)  # type: ignore[arg-type]
    resumed, listener = make_network(), Listener()
    result = train(resumed, tmp_path / "r", listener=listener, **options)  # type: ignore[arg-type]
    assert same_weights(straight, resumed)
    assert result.resumed_from == die_after
    assert listener.starts == [(4, die_after)]
    assert [without_time(record) for record in result.history] == [
        without_time(record) for record in expected.history
    ]


def without_time(record: object) -> dict[str, object]:
    values = dataclasses.asdict(record)  # type: ignore[call-overload]
    return {name: value for name, value in values.items() if name != "seconds"}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_repeats_from_run_to_run(tmp_path: Path, optimizer: Literal["sgd", "adamw"]) -> None:
    training = TRAINING.model_copy(update={"optimizer": optimizer, "epochs": 2})
    networks = [make_network() for _ in range(2)]
    for number, network in enumerate(networks):
        torch.manual_seed(number)  # what the caller's generator holds does not matter
        train(network, tmp_path / str(number), training=training)
    other = make_network()
    train(other, tmp_path / "other", training=training, seed=1)
    assert same_weights(*networks)
    assert not same_weights(networks[0], other)


def test_the_callers_random_state_survives(tmp_path: Path) -> None:
    network = make_network()
    before = torch.get_rng_state()
    train(network, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_checkpoint_costs_an_epoch_and_not_the_result(tmp_path: Path) -> None:
    straight, resumed = make_network(), make_network()
    train(straight, tmp_path / "straight")
    with pytest.raises(KeyboardInterrupt):
        train(resumed, tmp_path / "r", listener=Listener(die_after=3))
    newest = max((tmp_path / "r").iterdir())
    newest.write_bytes(newest.read_bytes()[:-50])
    resumed, listener = make_network(), Listener()
    result = train(resumed, tmp_path / "r", listener=listener)
    assert same_weights(straight, resumed)
    assert result.resumed_from == 2
    assert listener.warnings == [f"{newest.name} is damaged; trying the checkpoint before it"]


def test_checkpoints_of_a_changed_training_are_not_taken_up(tmp_path: Path) -> None:
    train(make_network(), tmp_path)
    listener = Listener()
    changed = TRAINING.model_copy(update={"learning_rate": 0.04})
    assert train(make_network(), tmp_path, training=changed, listener=listener).resumed_from is None
    assert len(listener.warnings) == 2


def test_the_best_epoch_is_kept(tmp_path: Path) -> None:
    network, task = make_network(), make_task()
    training = Training(epochs=8, batch_size=8, learning_rate=0.8, warmup_epochs=0, momentum=0.0)
    listener = Listener()
    result = train(network, tmp_path, task=task, training=training, listener=listener)
    best = max(listener.epochs, key=lambda record: (record.validation_top1, -record.validation_loss))
    assert result.best == best
    assert result.validation_top1 == best.validation_top1
    assert top1(network, task, task.validation) == best.validation_top1


def test_the_test_split_is_never_read(tmp_path: Path) -> None:
    task = dataclasses.replace(make_task(), test=None)  # type: ignore[arg-type]
    train(make_network(), tmp_path, task=task)


def test_the_teacher_is_left_as_it_is(tmp_path: Path) -> None:
    teacher = make_network(3).train()
    before = copy.deepcopy(teacher)
    train(make_network(), tmp_path, distillation=Distillation(), teacher=teacher)
    assert same_weights(teacher, before)
    assert teacher.training
    assert teacher.bn1.training
    assert all(parameter.requires_grad for parameter in teacher.parameters())


def test_the_network_comes_back_in_the_usual_layout(tmp_path: Path) -> None:
    network = make_network()
    train(network, tmp_path)
    assert network.conv2.weight.is_contiguous()


def test_progress_hears_every_step(tmp_path: Path) -> None:
    listener = Listener()
    train(make_network(), tmp_path, listener=listener)
    assert listener.starts == [(4, 0)]
    assert listener.steps == [(1, 3), (2, 3), (3, 3)] * 4
    assert listener.epochs[0].parts.keys() == {"labels"}


def test_divergence_names_step_and_parts(tmp_path: Path) -> None:
    training = Training(epochs=3, batch_size=32, learning_rate=1e30, warmup_epochs=0)
    with pytest.raises(DivergedError) as caught:
        train(make_network(), tmp_path, training=training)
    assert str(caught.value) == (
        "the loss became nan at step 2 (epoch 1), first in the part 'labels': labels=nan\n"
        "  try: a learning_rate below 1e+30, a longer warm-up, or precision = 'fp32'"
    )


def test_a_network_that_validates_to_nan_has_diverged(tmp_path: Path) -> None:
    class NaNInEvaluation(nn.Linear):
        def forward(self, x_BCHW: Tensor) -> Tensor:
            logits_BK = super().forward(x_BCHW.flatten(1))
            return logits_BK if self.training else logits_BK * float("nan")

    with pytest.raises(DivergedError) as caught:
        train(NaNInEvaluation(64, 3), tmp_path)
    assert caught.value.message == "the validation loss became nan after epoch 1"


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NetworkError) as caught:
        train(make_network(), tmp_path, distillation=Distillation(), teacher=make_network(num_classes=10))
    assert str(caught.value) == (
        "teacher: gives an output of shape (2, 10) for 2 examples; the task has 3 classes\n"
        "  try: choose a network, or weights, made for the classes of the task"
    )


def test_terms_without_a_teacher_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(make_network(), tmp_path, distillation=Distillation())
    assert str(caught.value) == (
        "term kd: needs a teacher, which was not given\n  try: give the teacher, or leave the term out"
    )


def test_summary_is_json(tmp_path: Path) -> None:
    summary = train(make_network(), tmp_path).summary()
    assert summary["precision"] == "fp32, channels last"
    assert summary["resumed_from"] is None
    assert [record["epoch"] for record in summary["history"]] == [1, 2, 3, 4]
