"""Heads on the frozen teacher, and the students that learn from them: all three stages of SSKD and HSAKD."""

from __future__ import annotations

import copy
import dataclasses
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.distillation.frozen_heads import build_head_objective
from edgekd.distillation.step import TEACHER
from edgekd.documents.recipe import Augmentation, Distillation, KDTerm, Training
from edgekd.documents.terms.pretext import HSAKDTerm, LSSKDTerm, SLATerm, SSKDTerm
from edgekd.errors import UsageError
from edgekd.tasks.make import make_task as task_of_arrays
from edgekd.tasks.task import Task
from edgekd.training.data import derive_seed
from edgekd.training.heads import train_heads
from edgekd.training.setting import setting_of
from edgekd.training.trainer import train_network
from tests.training.cases import Listener, make_network, make_task, same_weights

SHORT = {"epochs": 4, "batch_size": 32, "milestones": (2, 3), "precision": "fp32"}
SSKD = SSKDTerm.model_validate({"kind": "sskd", "head_training": SHORT})
HSAKD = HSAKDTerm.model_validate({"kind": "hsakd", "head_training": SHORT})
TRAINING = Training(epochs=12, batch_size=16, learning_rate=0.01, precision="fp32")


def staged_network(width: int, *, seed: int = 1, axes: int = 2, channels: int = 1) -> nn.Sequential:
    """Two stages, a pool and a classifier with these names, for images or for series."""
    torch.manual_seed(seed)
    convolution: Any = (nn.Conv1d, nn.Conv2d)[axes - 1]
    norm: Any = (nn.BatchNorm1d, nn.BatchNorm2d)[axes - 1]
    pool: Any = (nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d)[axes - 1]

    def stage(before: int, after: int, stride: int) -> nn.Sequential:
        layers = convolution(before, after, 3, stride=stride, padding=1, bias=False)
        return nn.Sequential(layers, norm(after), nn.ReLU())

    parts = OrderedDict[str, nn.Module](
        stage1=stage(channels, width, 1),
        stage2=stage(width, 2 * width, 2),
        pool=nn.Sequential(pool(2), nn.Flatten(1)),
        logits=nn.Linear(2 * width * 2**axes, 3),
    )
    return nn.Sequential(parts)


def waves() -> Task:
    """Series of two channels: three frequencies at random phases, with a trend that tells sign and order."""
    rng = np.random.default_rng(0)

    def part(count: int) -> tuple[Any, Any]:
        labels = np.arange(count) % 3
        times = np.linspace(0, 1, 24)
        phases = rng.uniform(0, 6, (count, 1, 1))
        wave = np.sin(2 * np.pi * (2 + 3 * labels)[:, None, None] * times + phases)
        x = wave + 2 * times + rng.normal(0, 0.1, (count, 2, 24))
        return x.astype(np.float32), labels

    return task_of_arrays(
        "waves", train=part(150), test=part(60), layout="NCL", validation_fraction=0.2, seed=0
    )


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, nn.Module]:
    torch.set_num_threads(1)
    task, teacher = make_task(train=128, augmentation=Augmentation(crop=1)), staged_network(12)
    train_network(
        teacher, task, TRAINING, None, teacher=None, checkpoint_dir=tmp_path_factory.mktemp("t"), seed=0
    )
    return task, teacher


@pytest.mark.parametrize("section", [SSKD, HSAKD], ids=lambda section: section.kind)
def test_the_head_learns_and_the_teacher_stays_as_it_is(
    section: SSKDTerm | HSAKDTerm, taught: tuple[Task, nn.Module], tmp_path: Path
) -> None:
    task, teacher = taught
    teacher.train()
    before = copy.deepcopy(teacher)
    _, result = train_heads(teacher, task, section, checkpoint_dir=tmp_path, seed=0)
    assert same_weights(teacher, before)
    assert all(one.requires_grad for one in teacher.parameters())
    assert all(module.training for module in teacher.modules())
    losses = [record.loss for record in result.history]
    assert losses[-1] < losses[0] - 0.03  # type: ignore[operator]
    rates = [record.learning_rate for record in result.history]
    assert rates == pytest.approx([0.05, 0.05, 0.005, 0.0005])
    best = min(result.history, key=lambda record: record.validation_loss)
    assert result.best == best


def test_the_state_is_that_of_the_head_alone(taught: tuple[Task, nn.Module], tmp_path: Path) -> None:
    state, _ = train_heads(taught[1], taught[0], SSKD, checkpoint_dir=tmp_path, seed=0)
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "0.weight": (96, 96),
        "0.bias": (96,),
        "2.weight": (96, 96),
        "2.bias": (96,),
    }


def test_a_step_is_one_of_the_head_over_the_teacher_in_evaluation_mode(
    taught: tuple[Task, nn.Module], tmp_path: Path
) -> None:
    task, teacher = make_task(train=64), copy.deepcopy(taught[1]).eval()
    once = {"epochs": 1, "batch_size": 64, "schedule": "cosine", "milestones": (), "precision": "fp32"}
    section = SSKDTerm.model_validate({"kind": "sskd", "head_training": once})
    found, _ = train_heads(teacher, task, section, checkpoint_dir=tmp_path, seed=5)
    torch.manual_seed(derive_seed(5, "teacher's heads"))
    head = nn.Sequential(nn.Linear(96, 96), nn.ReLU(), nn.Linear(96, 96))
    x_NCHW = torch.from_numpy(task.normalize(task.train.x))
    with torch.no_grad():
        views = [teacher[:3](x_NCHW.rot90(turns, (2, 3))) for turns in range(4)]
    plain, turned = head(views[0]), head(torch.cat(views[1:]))
    cosines = nn.functional.cosine_similarity(turned.unsqueeze(1), plain.unsqueeze(0), dim=2)
    nn.functional.cross_entropy(cosines, torch.arange(192) % 64).backward()
    for name, weight in head.named_parameters():
        assert weight.grad is not None
        slope = weight.grad + (5e-4 * weight if weight.ndim > 1 else 0)
        torch.testing.assert_close(found[name], (weight - 0.05 * 1.9 * slope).detach(), rtol=1e-4, atol=1e-6)


def test_what_is_kept_is_the_head_of_the_best_epoch(taught: tuple[Task, nn.Module], tmp_path: Path) -> None:
    """A rate that explodes after the first epoch: the epochs that follow are not kept."""
    task, teacher = taught[0], copy.deepcopy(taught[1]).eval()
    bad = {**SHORT, "epochs": 2, "milestones": (1,), "gamma": 3000.0, "learning_rate": 0.02}
    section = HSAKDTerm.model_validate({"kind": "hsakd", "head_training": bad})
    state, result = train_heads(teacher, task, section, checkpoint_dir=tmp_path, seed=0)
    assert result.history[1].validation_loss > result.history[0].validation_loss
    head = build_head_objective(section, setting_of(teacher, {TEACHER: teacher}, task)).terms["hsakd"].head
    head.load_state_dict(dict(state))
    x_NCHW = torch.from_numpy(task.normalize(task.validation.x))
    x_RCHW = torch.cat([x_NCHW.rot90(turns, (2, 3)) for turns in range(4)])
    labels_R = torch.cat([4 * torch.from_numpy(task.validation.y) + turns for turns in range(4)])
    with torch.no_grad():
        logits = head.eval()([teacher[0](x_RCHW), teacher[:2](x_RCHW)])
    loss = sum(nn.functional.cross_entropy(logits_RJ, labels_R).item() for logits_RJ in logits)
    assert loss == pytest.approx(result.history[0].validation_loss, rel=1e-5)


@pytest.mark.parametrize("die_after", [1, 3])
def test_an_interrupted_training_ends_with_the_same_bits(
    taught: tuple[Task, nn.Module], tmp_path: Path, die_after: int
) -> None:
    task, teacher = taught
    expected, _ = train_heads(teacher, task, HSAKD, checkpoint_dir=tmp_path / "straight", seed=0)
    folder = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        train_heads(
            teacher, task, HSAKD, checkpoint_dir=folder, seed=0, progress=Listener(die_after=die_after)
        )
    found, result = train_heads(teacher, task, HSAKD, checkpoint_dir=folder, seed=0)
    assert result.resumed_from == die_after
    assert all(torch.equal(value, found[name]) for name, value in expected.items())


OBJECTIVES = {
    "sskd": Distillation(label_weight=0.1, terms=(KDTerm(), SSKD)),
    "hsakd": Distillation(label_weight=1.0, terms=(HSAKD,)),
    "lsskd": Distillation(label_weight=1.0, terms=(LSSKDTerm(kind="lsskd"),)),
    "sla": Distillation(label_weight=1.0, terms=(SLATerm(kind="sla"),)),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_student_learns_by_the_published_objective(
    name: str, taught: tuple[Task, nn.Module], tmp_path: Path
) -> None:
    task, teacher = taught
    sections = [section for section in (SSKD, HSAKD) if section.kind == name]
    heads = {
        section.kind: train_heads(teacher, task, section, checkpoint_dir=tmp_path / "head", seed=0)[0]
        for section in sections
    }
    student = staged_network(6, seed=2)
    plain = set(student.state_dict())
    result = train_network(
        student,
        task,
        TRAINING,
        OBJECTIVES[name],
        teacher=teacher,
        checkpoint_dir=tmp_path / "student",
        seed=0,
        heads=heads,
    )
    assert result.validation_top1 > 0.9
    assert set(student.state_dict()) == plain
    parts = [record.parts[name] for record in result.history]
    assert parts[-1] < 0.9 * parts[0]
    assert any(key.startswith(f"terms.{name}.") for key in result.heads)


def test_all_stages_on_series(tmp_path: Path) -> None:
    task = waves()
    teacher, student = (staged_network(width, axes=1, channels=2, seed=width) for width in (12, 6))
    train_network(teacher, task, TRAINING, None, teacher=None, checkpoint_dir=tmp_path / "t", seed=0)
    heads = {
        section.kind: train_heads(teacher, task, section, checkpoint_dir=tmp_path / section.kind, seed=0)[0]
        for section in (SSKD, HSAKD)
    }
    terms = (SSKD, HSAKD, LSSKDTerm(kind="lsskd"), SLATerm(kind="sla"))
    result = train_network(
        student,
        task,
        TRAINING,
        Distillation(label_weight=1.0, terms=terms),
        teacher=teacher,
        checkpoint_dir=tmp_path / "s",
        seed=0,
        heads=heads,
    )
    for name in ("sskd", "hsakd", "lsskd", "sla"):
        parts = [record.parts[name] for record in result.history]
        assert parts[-1] < parts[0]


def test_a_student_without_the_head_says_what_is_missing(
    taught: tuple[Task, nn.Module], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="term sskd: needs a head that was trained on the frozen teacher"):
        train_network(
            staged_network(6),
            taught[0],
            TRAINING,
            OBJECTIVES["sskd"],
            teacher=taught[1],
            checkpoint_dir=tmp_path,
            seed=0,
        )


def test_a_teacher_without_the_tap(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train_heads(make_network(), make_task(), SSKD, checkpoint_dir=tmp_path, seed=0)
    assert str(caught.value) == (
        "term sskd: reads the tap 'pool', which the teacher does not have\n"
        "  try: one of the teacher's taps: conv1, bn1, conv2, bn2, dropout, linear"
    )


def test_a_task_without_the_views(taught: tuple[Task, nn.Module], tmp_path: Path) -> None:
    task = dataclasses.replace(make_task(), augmentation=Augmentation(flip=True))
    wide = np.repeat(task.train.x, 2, axis=3)
    shape = task.input.model_copy(update={"shape": (1, 8, 16)})
    task = dataclasses.replace(
        task, train=dataclasses.replace(task.train, x=wide), validation=task.test, input=shape
    )
    with pytest.raises(UsageError, match="term sskd: needs the views pretext1, pretext2, pretext3"):
        train_heads(taught[1], task, SSKD, checkpoint_dir=tmp_path, seed=0)
