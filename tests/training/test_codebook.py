"""Quantized distillation and differentiable quantization: judged on the codes, resumed to the same bits."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from edgekd.documents.recipe import Distillation, QuantizedTraining, Training
from edgekd.documents.terms import FitNetTerm
from edgekd.errors import UsageError
from edgekd.quantization.codebook import Codebooks
from edgekd.quantization.codebook_file import read_codebooks, write_codebooks
from edgekd.quantization.codebook_network import UniformNetwork, coded_parameters
from edgekd.tasks.task import Task
from edgekd.training.codebook import (
    POINT_TRAINING,
    PUBLISHED_OBJECTIVE,
    gradient_norms,
    train_differentiable_quantization,
    train_quantized_distillation,
)
from edgekd.training.data import epoch_order
from edgekd.training.evaluate import predict_logits
from edgekd.training.result import TrainingResult
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, make_network, make_task, same_weights

TRAINING = Training(epochs=3, batch_size=32, learning_rate=0.05, precision="fp32")
SECTION = QuantizedTraining(epochs=3, batch_size=32, learning_rate=0.02, precision="fp32")
POINTS = POINT_TRAINING.model_copy(
    update={"epochs": 3, "batch_size": 32, "learning_rate": 1e-3, "precision": "fp32"}
)
Outcome = tuple[TrainingResult, Codebooks]


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    """A trained student."""
    network = make_network(dropout=0.0)
    training = TRAINING.model_copy(update={"epochs": 8})
    folder = tmp_path_factory.mktemp("student")
    train_network(network, make_task(), training, None, teacher=None, checkpoint_dir=folder, seed=0)
    return network


def distill(student: nn.Module, folder: Path, **options: Any) -> Outcome:
    chosen: dict[str, Any] = {"task": make_task(), "section": SECTION, "bits": 2, "bucket": 32}
    chosen |= {"teacher": make_network(3), "seed": 0, **options}
    return train_quantized_distillation(student, checkpoint_dir=folder, **chosen)


def learn_points(student: nn.Module, folder: Path, **options: Any) -> Outcome:
    chosen: dict[str, Any] = {"task": make_task(), "section": POINTS, "bits": 2, "bucket": 32, "seed": 0}
    return train_differentiable_quantization(student, checkpoint_dir=folder, **(chosen | options))


METHODS = pytest.mark.parametrize("method", [distill, learn_points])


def same_codebooks(first: Codebooks, second: Codebooks) -> bool:
    pairs = zip(first.state().items(), second.state().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


def top1(codebooks: Codebooks, task: Task) -> float:
    network = make_network(seed=7, dropout=0.0)
    network.load_state_dict(codebooks.state())
    logits_NK = predict_logits(network, torch.from_numpy(task.normalize(task.validation.x)))
    return float((logits_NK.argmax(1).numpy() == task.validation.y).mean())


@METHODS
def test_what_is_judged_is_what_the_file_holds(method: Any, student: nn.Module, tmp_path: Path) -> None:
    result, codebooks = method(student, tmp_path)
    write_codebooks(codebooks, tmp_path / "student.safetensors")
    assert top1(read_codebooks(tmp_path / "student.safetensors"), make_task()) == result.validation_top1
    assert all(book.levels == 4 and book.bucket <= 32 for book in codebooks.books.values())


@METHODS
def test_resumes_to_the_same_bits(method: Any, student: nn.Module, tmp_path: Path) -> None:
    task = make_task(augmentation=NOISY)
    _, straight = method(student, tmp_path / "straight", task=task)
    with pytest.raises(KeyboardInterrupt):
        method(student, tmp_path / "killed", task=task, progress=Listener(die_after=2))
    result, resumed = method(student, tmp_path / "killed", task=task)
    assert result.resumed_from == 2
    assert same_codebooks(straight, resumed)


@METHODS
@pytest.mark.parametrize("other", [{"bits": 3}, {"bucket": 16}, {"float_ends": True}])
def test_a_checkpoint_of_another_scheme_is_not_taken_up(
    method: Any, other: dict[str, Any], student: nn.Module, tmp_path: Path
) -> None:
    method(student, tmp_path)
    listener = Listener()
    result, _ = method(student, tmp_path, progress=listener, **other)
    assert result.resumed_from is None
    assert listener.warnings[0].endswith("belongs to another training; trying the checkpoint before it")


@METHODS
def test_the_student_is_left_as_it_is(method: Any, student: nn.Module, tmp_path: Path) -> None:
    before = copy.deepcopy(student)
    method(student, tmp_path)
    assert same_weights(student, before)
    assert all(one.requires_grad for one in student.parameters())


@METHODS
def test_ends_and_others_stay_in_float(method: Any, student: nn.Module, tmp_path: Path) -> None:
    _, codebooks = method(student, tmp_path / "a", float_ends=True)
    assert list(codebooks.books) == ["conv2.weight"]
    _, codebooks = method(student, tmp_path / "b", kept_float=["conv2.weight"])
    assert list(codebooks.books) == ["conv1.weight", "linear.weight"]


@METHODS
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 9}, "9 bits for a code; from 1 to 8 are possible"),
        ({"bits": 0}, "0 bits for a code; from 1 to 8 are possible"),
        ({"bucket": 0}, "a bucket of 0 weights; at least 1 is possible, or None for a whole tensor"),
    ],
)
def test_what_is_out_of_range(
    method: Any, options: dict[str, Any], message: str, student: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as caught:
        method(student, tmp_path, **options)
    assert str(caught.value) == message


def test_distillation_repairs_what_rounding_breaks(student: nn.Module, tmp_path: Path) -> None:
    result, _ = distill(student, tmp_path, bits=1, section=SECTION.model_copy(update={"epochs": 8}))
    came, *trained = result.history
    assert came.epoch == 0
    assert result.best_epoch > 0
    assert min(epoch.validation_loss for epoch in trained) < 0.7 * came.validation_loss


def test_points_learn_to_follow_the_network_in_float(student: nn.Module, tmp_path: Path) -> None:
    alone = {"epochs": 8, "learning_rate": 0.01, "label_weight": 0.0, "self_weight": 1.0}
    result, codebooks = learn_points(student, tmp_path, section=POINTS.model_copy(update=alone))
    losses = [epoch.loss for epoch in result.history[1:]]
    assert min(losses[-3:]) < 0.75 * losses[0]  # type: ignore[operator,type-var]
    assert result.history[1].parts.keys() == {"self"}
    assert all(book.points_S is not None for book in codebooks.books.values())


def test_points_change_nothing_but_points_and_statistics(student: nn.Module, tmp_path: Path) -> None:
    result, codebooks = learn_points(student, tmp_path, bits=1)
    assert result.best_epoch > 0
    before = student.state_dict()
    changed = {name for name, value in codebooks.tensors.items() if not torch.equal(value, before[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {name for name in before if name.endswith(statistics)}


def test_no_epochs_leave_the_student_rounded(student: nn.Module, tmp_path: Path) -> None:
    result, codebooks = distill(student, tmp_path, section=SECTION.model_copy(update={"epochs": 0}))
    rounded = UniformNetwork(copy.deepcopy(student), coded_parameters(student), levels=4, bucket=32)
    assert same_codebooks(codebooks, rounded.codebooks())
    assert result.best_epoch == 0


def test_the_published_objective_is_the_default(tmp_path: Path) -> None:
    """0.3 CE + 0.7 T^2 KL at T = 2, by an independent statement, on a whole batch in one step."""
    student, teacher = make_network(dropout=0.0), make_network(3, dropout=0.0).eval()
    section = TRAINING.model_copy(update={"epochs": 1, "batch_size": 96})
    result, _ = distill(student, tmp_path, section=section, teacher=teacher)
    rounded = UniformNetwork(student, coded_parameters(student), levels=4, bucket=32).train()
    task = make_task()
    x_NC, y_N = torch.from_numpy(task.normalize(task.train.x)), torch.from_numpy(task.train.y)
    with torch.no_grad():
        z_NK, t_NK = rounded(x_NC).double(), teacher(x_NC).double()
        p_NK = (t_NK / 2).softmax(1)
        kl = (p_NK * (p_NK.log() - (z_NK / 2).log_softmax(1))).sum(1).mean()
        expected = 0.3 * F.cross_entropy(z_NK, y_N) + 0.7 * 4 * kl
    assert result.history[0].epoch == 1  # a student that begins anew is no candidate as it came
    assert result.history[0].loss == pytest.approx(float(expected), rel=1e-5)


def test_the_recipe_s_objective_with_heads_and_taps(tmp_path: Path) -> None:
    term = FitNetTerm(kind="fitnet", weight=1.0, student_tap="conv2", teacher_tap="conv2")
    distillation = Distillation(label_weight=0.5, terms=(term,))
    result, _ = distill(make_network(dropout=0.0), tmp_path, section=TRAINING, distillation=distillation)
    assert result.history[0].parts.keys() == {"labels", "fitnet"}
    assert result.history[-1].parts["fitnet"] < result.history[0].parts["fitnet"]


def test_a_teacher_that_is_wanted_and_not_there(student: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="term kd: needs a teacher, which was not given"):
        distill(student, tmp_path, section=TRAINING, teacher=None)
    assert PUBLISHED_OBJECTIVE.needs_teacher


def test_gradient_norms_by_one_sum(student: nn.Module) -> None:
    """The first five batches of a seeded order, each a mean; here they are the whole split."""
    task, names = make_task(), coded_parameters(student)
    found = gradient_norms(student, task, names, batch_size=19, seed=0)
    network = copy.deepcopy(student).eval()
    total = [torch.zeros_like(network.get_parameter(name)) for name in names]
    for indices_B in epoch_order(len(task.train.y), steps=5, seed=0, epoch=1):
        x_BC = torch.from_numpy(task.normalize(task.train.x[indices_B.numpy()]))
        loss = F.cross_entropy(network(x_BC), torch.from_numpy(task.train.y[indices_B.numpy()]))
        gradients = torch.autograd.grad(loss, [network.get_parameter(name) for name in names])
        total = [one + other / 5 for one, other in zip(total, gradients, strict=True)]
    np.testing.assert_allclose(found, [float(one.norm()) for one in total], rtol=1e-4)


def test_points_by_gradient(student: nn.Module, tmp_path: Path) -> None:
    _, codebooks = learn_points(student, tmp_path, bits=3, points_by_gradient=True)
    norms = gradient_norms(student, make_task(), coded_parameters(student), batch_size=32, seed=0)
    levels = [book.levels for book in codebooks.books.values()]
    assert sum(levels) == 8 * len(levels)
    assert min(levels) >= 4
    assert levels.index(max(levels)) == norms.index(max(norms))
    assert len(set(levels)) > 1
