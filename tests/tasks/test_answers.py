"""Answers of a black-box teacher in a file, and every way in which it can be of no use."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest

from edgekd.errors import DataError
from edgekd.tasks.answers import read_answers
from edgekd.tasks.fingerprint import fingerprint
from edgekd.tasks.make import make_task

CLASSES = ("ant", "bee", "cat")
X = np.random.default_rng(0).integers(0, 256, (30, 6)).astype(np.uint8)
Y = np.arange(30) % 3
TEST_X = np.random.default_rng(1).integers(0, 256, (6, 6)).astype(np.uint8)
POOL = np.random.default_rng(2).integers(0, 256, (4, 6)).astype(np.uint8)
P = np.random.default_rng(3).dirichlet([1, 1, 1], 30)


def make(**settings):
    return make_task(
        "own",
        train=(X, Y),
        test=(TEST_X, np.arange(6) % 3),
        layout="NC",
        validation_fraction=0.2,
        seed=0,
        classes=CLASSES,
        **settings,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / "answers.npz"


def test_probabilities_become_their_logarithms(path):
    np.savez(path, probabilities=P.astype(np.float32))
    answers = read_answers(path, make())
    assert answers.test_NK is None
    assert answers.rows_NK.dtype == np.float32
    assert answers.rows_NK == pytest.approx(np.log(P), abs=1e-4)


def test_a_row_of_the_file_meets_its_example(path):
    np.savez(path, probabilities=P)
    task, answers = make(), read_answers(path, make())
    for split in (task.train, task.validation):
        for x, row in zip(split.x, split.rows, strict=True):
            (place,) = np.flatnonzero((x == X).all(axis=1))
            assert np.exp(answers.rows_NK[row]) == pytest.approx(P[place], abs=1e-5)


def test_labels_become_nearly_one_and_the_divergence_stays_finite(path):
    np.savez(path, labels=Y.astype(np.uint8))
    rows = read_answers(path, make()).rows_NK
    for row, label in zip(rows, Y, strict=True):
        for place in range(3):
            wanted = (1.0 if place == label else 1e-6) / (1 + 2e-6)
            assert row[place] == pytest.approx(math.log(wanted), abs=1e-5)


def test_zeros_are_lifted(path):
    np.savez(path, probabilities=np.tile([1.0, 0.0, 0.0], (30, 1)))
    assert read_answers(path, make()).rows_NK[0, 1] == pytest.approx(math.log(1e-6), abs=1e-4)


def test_half_precision_is_precise_enough(path):
    np.savez(path, probabilities=P.astype(np.float16))
    answers = read_answers(path, make())
    assert np.exp(answers.rows_NK).sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_the_classes_in_another_order_are_put_into_the_tasks(path):
    order = [2, 0, 1]
    names = np.array(CLASSES)[order]
    np.savez(path, probabilities=P[:, order], classes=names, test_labels=np.array([0, 1, 2, 0, 1, 2]))
    answers = read_answers(path, make())
    assert answers.rows_NK == pytest.approx(np.log(P), abs=1e-4)
    assert answers.test_NK.argmax(axis=1).tolist() == [2, 0, 1, 2, 0, 1]


def test_the_pool_is_answered_for_behind_the_training_file(path):
    pool_p = np.random.default_rng(4).dirichlet([1, 1, 1], 4)
    np.savez(path, labels=Y, unlabeled_probabilities=pool_p)
    task = make(unlabeled=POOL)
    rows = read_answers(path, task).rows_NK
    assert np.exp(rows[task.train.rows[-4:]]) == pytest.approx(pool_p, abs=1e-5)


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({}, "has no probabilities and no labels; the task has 30 rows in the training file"),
        ({"probabilities": P, "labels": Y}, "has probabilities and labels; one of them is wanted"),
        (
            {"probabilities": P[:24]},
            "probabilities: has the shape (24, 3); (30, 3) is wanted: a row each, a column a class",
        ),
        (
            {"probabilities": np.rint(P).astype(int)},
            "probabilities: is int64; floating-point numbers are wanted",
        ),
        (
            {"probabilities": np.log(P)},
            f"probabilities: row 0, of sum {np.log(P[0]).sum():.4g}, holds no probabilities; "
            "take the softmax of logits",
        ),
        (
            {"probabilities": np.where(np.arange(30)[:, None] == 7, np.nan, P)},
            "probabilities: row 7, of sum nan, holds no probabilities; take the softmax of logits",
        ),
        ({"labels": Y[:, None]}, "labels: has the shape (30, 1); (30,) is wanted: one for each row"),
        ({"labels": Y * 1.0}, "labels: is float64; whole numbers are wanted"),
        ({"labels": Y + 1}, "labels: label 3 of row 2 is none of the 3 classes"),
        ({"labels": Y - 1}, "labels: label -1 of row 0 is none of the 3 classes"),
        (
            {"labels": Y, "test_labels": Y},
            "test_labels: has the shape (30,); (6,) is wanted: one for each row",
        ),
    ],
)
def test_one_problem_is_one_line(path, arrays, problem):
    np.savez(path, **(arrays or {"z": np.zeros(1)}))
    with pytest.raises(DataError) as caught:
        read_answers(path, make())
    assert str(caught.value) == f"{path}: {problem}"


def test_every_problem_is_told_at_once(path):
    np.savez(path, labels=Y + 1, test_labels=Y)
    with pytest.raises(DataError) as caught:
        read_answers(path, make(unlabeled=POOL))
    assert str(caught.value) == (
        f"{path}: 3 problems\n"
        "  labels: label 3 of row 2 is none of the 3 classes\n"
        "  has no unlabeled_probabilities and no unlabeled_labels; the task has 4 unlabeled examples\n"
        "  test_labels: has the shape (30,); (6,) is wanted: one for each row"
    )


def test_examples_in_other_rows_are_another_task():
    task = make()
    splits = (task.train, task.validation, task.test)
    moved = dataclasses.replace(task.train, rows=task.train.rows[::-1])
    assert fingerprint(splits, task.classes, task.input) == task.fingerprint
    assert fingerprint((moved, *splits[1:]), task.classes, task.input) != task.fingerprint


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (["ant", "dog", "cat"], "its class 1 is 'dog'"),
        (["ant", "bee", "cat", "dog"], "its class 3 is 'dog'"),
        (["ant", "cat"], "it lacks the class 'bee'"),
        (["ant", "bee", "cat", "bee"], "it names 'bee' twice"),
    ],
)
def test_other_classes_are_refused(path, names, difference):
    np.savez(path, labels=Y, classes=np.array(names))
    with pytest.raises(DataError) as caught:
        read_answers(path, make())
    assert str(caught.value) == (
        f"{path}: answers for other classes than the task's: {difference}\n"
        "  try: the task's classes are ant, bee, cat"
    )


def test_a_task_that_does_not_know_its_rows_has_no_answers(path):
    np.savez(path, labels=Y)
    task = make()
    by_hand = dataclasses.replace(task, train=dataclasses.replace(task.train, rows=None))
    with pytest.raises(DataError) as caught:
        read_answers(path, by_hand)
    assert str(caught.value) == (
        "task own: does not say which rows of its file the examples are, so that they have no answers\n"
        "  try: edgekd.tasks.make.make_task notes them in Split.rows"
    )


def test_a_file_of_something_else(path):
    path.write_text("cat, 0.9")
    with pytest.raises(DataError) as caught:
        read_answers(path, make())
    assert str(caught.value) == (
        f"{path}: is no .npz file\n  try: numpy.savez(PATH, probabilities=probabilities) writes one"
    )


def test_pickled_objects_are_refused(path):
    np.savez(path, labels=np.array([{}] * 30, dtype=object))
    with pytest.raises(DataError, match="holds pickled Python objects, which could run code: refused"):
        read_answers(path, make())
