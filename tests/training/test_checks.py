"""What is refused before a training begins."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekd.distillation.labels import UNLABELED
from edgekd.distillation.objective import Objective, Part
from edgekd.distillation.term import Term
from edgekd.documents.recipe import QuantizedTraining, Training
from edgekd.documents.terms import KDTerm
from edgekd.errors import UsageError
from edgekd.tasks.task import Split
from edgekd.training.checks import check_objective
from tests.training.cases import make_task

TASK = make_task(train=100)
SECTION = Training(batch_size=10)


class Contrast(Term):
    smallest_batch = 10


class Memory(Term):
    memory = ("bank",)


class Labeled(Term):
    reads_labels = True


class WarmingUp(Term):
    warmup_epochs = 8


def objective(term: Term) -> Objective:
    return Objective([Part("it", 1.0, term)])


def test_a_batch_that_is_large_enough() -> None:
    check_objective(objective(Contrast()), TASK, SECTION)


@pytest.mark.parametrize(("batch_size", "processes", "smallest"), [(9, 1, 8), (10, 2, 5), (3, 1, 2)])
def test_a_batch_too_small_for_a_term(batch_size: int, processes: int, smallest: int) -> None:
    section = SECTION.model_copy(update={"batch_size": batch_size})
    with pytest.raises(UsageError) as caught:
        check_objective(objective(Contrast()), TASK, section, processes=processes)
    assert str(caught.value) == (
        f"term it: needs batches of at least 10 examples; the smallest one here has {smallest}\n"
        "  try: raise batch_size"
    )


def test_a_memory_is_kept_by_one_process() -> None:
    check_objective(objective(Memory()), TASK, SECTION)
    with pytest.raises(UsageError) as caught:
        check_objective(objective(Memory()), TASK, SECTION, processes=2)
    assert str(caught.value) == (
        "term it: remembers every training example, and 2 processes would each remember only their own\n"
        "  try: train on one device"
    )


def test_a_term_that_reads_labels_needs_them_all() -> None:
    y = TASK.train.y.copy()
    y[np.array([3])] = UNLABELED
    pool = dataclasses.replace(TASK, train=Split(TASK.train.x, y))
    check_objective(objective(Contrast()), pool, SECTION)
    check_objective(objective(Labeled()), TASK, SECTION)
    with pytest.raises(UsageError) as caught:
        check_objective(objective(Labeled()), pool, SECTION)
    assert str(caught.value) == (
        "term it: reads the label of every example, and some of this task have none\n"
        "  try: leave the unlabeled pool or the term out"
    )


def test_an_epoch_in_which_nothing_has_a_weight() -> None:
    late = KDTerm.model_validate({"start_epoch": 3})
    alone = Objective([Part("kd", 1.0, Contrast(), late)])
    beside = Objective([Part("labels", 0.1, Term()), Part("kd", 1.0, Contrast(), late)])
    check_objective(beside, TASK, SECTION.model_copy(update={"epochs": 9}))
    check_objective(alone, TASK, QuantizedTraining(epochs=0))
    with pytest.raises(UsageError) as caught:
        check_objective(alone, TASK, SECTION.model_copy(update={"epochs": 9}))
    assert str(caught.value) == (
        "the objective: no part of it has a weight in epoch 1: nothing would be learned\n"
        "  try: give the labels a weight, or a term that begins with epoch 1"
    )


def test_a_warm_up_that_never_ends() -> None:
    check_objective(objective(WarmingUp()), TASK, SECTION.model_copy(update={"epochs": 9}))
    with pytest.raises(UsageError) as caught:
        check_objective(objective(WarmingUp()), TASK, SECTION.model_copy(update={"epochs": 8}))
    assert str(caught.value) == (
        "term it: warms up for 8 epochs of a training of 8: its weights would never count\n"
        "  try: lower warmup_epochs, or train longer"
    )


def test_a_term_that_would_begin_after_the_last_epoch() -> None:
    late = Objective([Part("labels", 1.0, Term()), Part("kd", 1.0, Term(), KDTerm(start_epoch=9))])
    check_objective(late, TASK, SECTION.model_copy(update={"epochs": 9}))
    check_objective(late, TASK, QuantizedTraining(epochs=8, batch_size=10))
    with pytest.raises(UsageError) as caught:
        check_objective(late, TASK, SECTION.model_copy(update={"epochs": 8}))
    assert str(caught.value) == (
        "term kd: takes part from epoch 9 on, in a training of 8: it would never count\n"
        "  try: lower start_epoch, train longer, or leave the term out"
    )
