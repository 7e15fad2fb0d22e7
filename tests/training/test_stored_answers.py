"""A teacher of which only the answers are known: given by index, the same in each view, and not to be run."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekd.distillation.objective import build_objective
from edgekd.documents.recipe import Augmentation, Distillation, Training
from edgekd.documents.views import PRETEXT, STRONG, WEAK
from edgekd.errors import UsageError
from edgekd.training.data import Resident
from edgekd.training.precision import Precision
from edgekd.training.setting import setting_of
from edgekd.training.sources import Sources, StoredAnswers
from edgekd.training.trainer import train_network
from tests.training.cases import Listener, make_network, make_task

TASK = make_task()
LOGITS_NK = torch.randn(96, 3, generator=torch.Generator().manual_seed(0))
VALIDATION_MK = torch.randn(40, 3, generator=torch.Generator().manual_seed(1))
TRAINING = Training(epochs=2, batch_size=32, precision="fp32")


def stored() -> StoredAnswers:
    return StoredAnswers(LOGITS_NK, VALIDATION_MK)


def distillation(*terms: dict[str, object], label_weight: float = 0.0) -> Distillation:
    return Distillation.model_validate({"label_weight": label_weight, "terms": terms})


@pytest.mark.parametrize("views", [(WEAK,), (WEAK, STRONG), (WEAK, *PRETEXT), (WEAK, *PRETEXT, STRONG)])
def test_the_answer_to_an_example_is_the_same_in_both_its_views(views: tuple[str, ...]) -> None:
    train = Resident(torch.zeros(96, 1, 8, 8), torch.zeros(96, dtype=torch.int64))
    sources = Sources(
        {"teacher": stored()},
        train,
        taps={"teacher": ()},
        views=views,
        fixed=None,
        precision=lambda network: Precision("fp32", channels_last=True),
    )
    indices_B = torch.tensor([5, 90, 5, 0])
    answer = sources(indices_B, torch.zeros(4 * len(views), 1, 8, 8))["teacher"]
    for view in (WEAK, STRONG) if STRONG in views else (WEAK,):
        assert torch.equal(answer.logits(view), LOGITS_NK[indices_B])
    assert answer.views == tuple(view for view in views if view not in PRETEXT)
    assert not answer.logits_RK.requires_grad


def test_a_student_learns_from_answers_alone(tmp_path: Path) -> None:
    task = make_task(train=192)
    wrong = dataclasses.replace(task, train=dataclasses.replace(task.train, y=np.roll(task.train.y, 1)))
    sure = [12 * torch.eye(3)[torch.from_numpy(split.y)] for split in (task.train, task.validation)]
    student = make_network()
    result = train_network(
        student,
        wrong,
        Training(epochs=10, batch_size=32, learning_rate=0.1),
        distillation({"kind": "kd", "temperature": 1}),
        teacher=StoredAnswers(*sure),
        checkpoint_dir=tmp_path,
        seed=0,
    )
    assert result.validation_top1 > 0.85


def test_imitation_is_measured_on_the_answers_to_the_validation_split(tmp_path: Path) -> None:
    student, listener = make_network(), Listener()
    train_network(
        student,
        TASK,
        TRAINING,
        distillation({"kind": "kd"}),
        teacher=stored(),
        checkpoint_dir=tmp_path,
        seed=0,
        progress=listener,
    )
    with torch.no_grad():
        student.eval()
        best = max(listener.epochs, key=lambda record: (record.validation_top1, -record.validation_loss))
        logits_MK = student(torch.from_numpy(TASK.normalize(TASK.validation.x))).double()
    p, q = torch.softmax(VALIDATION_MK.double(), dim=1), torch.softmax(logits_MK, dim=1)
    expected = sum(float(p[m, k] * (p[m, k] / q[m, k]).log()) for m in range(len(p)) for k in range(3)) / len(
        p
    )
    assert best.validation_kl == pytest.approx(expected, rel=1e-4)


def test_answers_to_another_data_set_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train_network(
            make_network(),
            make_task(train=100),
            TRAINING,
            distillation({"kind": "kd"}),
            teacher=stored(),
            checkpoint_dir=tmp_path,
            seed=0,
        )
    assert str(caught.value) == (
        "teacher: the answers are to 96 training and 40 validation examples; the task has 100 and 40"
    )


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            {"kind": "fitnet", "student_tap": "conv2", "teacher_tap": "conv2"},
            "term fitnet: reads features of the teacher, of which only answers are known",
        ),
        (
            {"kind": "crd", "student_tap": "conv2", "teacher_tap": "conv2"},
            "term crd: reads features of the teacher, of which only answers are known",
        ),
        (
            {"kind": "sskd", "similarity_weight": 0.0},
            "term sskd: reads answers of the teacher to the views pretext1, pretext2, pretext3, "
            "which are not known",
        ),
    ],
)
def test_a_term_that_asks_for_more_is_refused(term: dict[str, object], message: str) -> None:
    setting = setting_of(make_network(), {"teacher": stored()}, TASK)
    with pytest.raises(UsageError) as caught:
        build_objective(distillation(term), setting)
    assert str(caught.value) == (
        f"{message}\n"
        "  try: a term that compares logits of the example as it is: kd, js, dkd, nkd, dist or meal"
    )


@pytest.mark.parametrize("kind", ["kd", "js", "dkd", "dist"])
def test_the_terms_that_the_hint_names_can_work(kind: str) -> None:
    setting = setting_of(make_network(), {"teacher": stored()}, TASK)
    build_objective(distillation({"kind": kind}), setting)
    if kind in ("kd", "js"):
        build_objective(distillation({"kind": kind, "view": "strong"}), setting)


def test_augmentation_does_not_change_the_answer(tmp_path: Path) -> None:
    task = make_task(augmentation=Augmentation(noise=0.5))
    result = train_network(
        make_network(),
        task,
        TRAINING,
        distillation({"kind": "kd"}),
        teacher=stored(),
        checkpoint_dir=tmp_path,
        seed=0,
    )
    assert len(result.history) == 2
