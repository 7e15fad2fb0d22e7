"""A pool of unlabeled examples: appended to the training split, checked against the others, or refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekd.documents.recipe import NpzTask, PythonTask
from edgekd.errors import DataError
from edgekd.tasks.make import make_task
from edgekd.tasks.python_task import task_problems
from edgekd.tasks.task import build_task
from edgekd.tasks.unlabeled import labeled_part

X = np.random.default_rng(0).integers(0, 256, (60, 6, 5, 3)).astype(np.uint8)
Y = np.arange(60) % 3
TEST_X = np.random.default_rng(1).integers(0, 256, (9, 6, 5, 3)).astype(np.uint8)
POOL = np.random.default_rng(2).integers(0, 256, (7, 6, 5, 3)).astype(np.uint8)


def make(unlabeled=None, **settings):
    defaults = {"layout": "NHWC", "validation_fraction": 0.2, "seed": 0}
    return make_task(
        "own", train=(X, Y), test=(TEST_X, np.arange(9) % 3), unlabeled=unlabeled, **defaults | settings
    )


def test_the_pool_stands_behind_the_labeled_examples():
    task, plain = make(POOL), make()
    assert task.train.y.tolist() == [*plain.train.y.tolist(), *[-1] * 7]
    assert np.array_equal(task.train.x[:48], plain.train.x)
    assert np.array_equal(task.train.x[48:], POOL.transpose(0, 3, 1, 2))
    assert np.array_equal(task.validation.y, plain.validation.y)
    assert task.classes == plain.classes
    assert task.input == plain.input  # normalized as if the pool were not there
    assert task.fingerprint != plain.fingerprint


def test_every_example_knows_its_row():
    task = make(POOL)
    for split in (task.train, task.validation):
        for x, row in zip(split.x, split.rows, strict=True):
            assert np.array_equal(x.transpose(1, 2, 0), X[row] if row < 60 else POOL[row - 60])
    assert task.train.rows[48:].tolist() == list(range(60, 67))
    assert sorted([*task.train.rows[:48], *task.validation.rows]) == list(range(60))


def test_the_labeled_part_is_the_task_without_the_pool():
    task, plain = make(POOL), make()
    part = labeled_part(task)
    assert np.array_equal(part.train.x, plain.train.x)
    assert np.array_equal(part.train.y, plain.train.y)
    assert np.array_equal(part.train.rows, plain.train.rows)
    assert part.fingerprint == plain.fingerprint  # so that the teacher's stage is found again
    assert labeled_part(plain) is plain


def with_copies(*examples):
    return np.concatenate([POOL[:3], np.stack(examples), POOL[3:]])


def test_an_example_of_the_test_set_is_counted_and_refused():
    with pytest.raises(DataError) as caught:
        make(with_copies(TEST_X[4], TEST_X[0]))
    assert str(caught.value) == (
        "own: unlabeled: 2 of its 9 examples are also in the test set: rows 3, 4\n"
        "  try: leave them out of the pool"
    )


def test_an_example_of_the_validation_split_is_refused_too():
    held = make().validation.rows
    with pytest.raises(DataError) as caught:
        make(with_copies(*X[held[:7]], TEST_X[2]))
    assert str(caught.value) == (
        "own: 2 problems\n"
        "  unlabeled: 1 of its 15 examples is also in the test set: row 10\n"
        "  unlabeled: 7 of its 15 examples are also in the validation split: rows 3, 4, 5, 6, 7 and 2 more\n"
        "  try: leave them out of the pool"
    )


def test_an_example_of_the_training_split_does_no_harm():
    learned = make().train.rows
    assert len(make(with_copies(X[learned[0]])).train.y) == 48 + 8


@pytest.mark.parametrize(
    ("pool", "problem"),
    [
        ([[1.0]], "unlabeled: x is a list; a NumPy array is wanted"),
        (POOL[:0], "unlabeled: x has shape (0, 6, 5, 3), which is empty"),
        (POOL[..., 0], "unlabeled: x has shape (7, 6, 5); layout NHWC has 4 axes"),
        (POOL[:, :5], "an example has shape (6, 5, 3) in train and (5, 5, 3) in unlabeled"),
        (POOL.astype(np.float32), "x is uint8 in train and float32 in unlabeled"),
        (
            np.where(POOL > 100, np.nan, 1.0).astype(np.float32),
            f"unlabeled: x has {(POOL > 100).sum()} values that are NaN, infinite or beyond float32, "
            "the first in example 0",
        ),
    ],
)
def test_a_pool_that_cannot_be_used(pool, problem):
    with pytest.raises(DataError) as caught:
        make(pool)
    assert str(caught.value) == f"own: {problem}"


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    np.savez(tmp_path / "test.npz", x=TEST_X, y=np.arange(9) % 3)
    np.savez(tmp_path / "pool.npz", x=POOL, y=np.zeros(7))
    return tmp_path


def from_files(folder, unlabeled):
    section = NpzTask(name="npz", train="train.npz", test="test.npz", unlabeled=unlabeled)
    return build_task(section, base_dir=folder, seed=0)


def test_a_pool_in_a_file(folder):
    task = from_files(folder, "pool.npz")
    assert (task.train.y == -1).sum() == 7
    assert np.array_equal(task.train.x[-7:], POOL.transpose(0, 3, 1, 2))


def test_a_pool_that_is_not_there(folder):
    with pytest.raises(DataError) as caught:
        from_files(folder, "no.npz")
    assert str(caught.value) == f"npz: unlabeled: {folder}/no.npz: there is no such file"


def test_the_files_are_named_where_the_pool_overlaps(folder):
    np.savez(folder / "pool.npz", x=with_copies(TEST_X[0]))
    with pytest.raises(DataError) as caught:
        from_files(folder, "pool.npz")
    assert str(caught.value) == (
        "npz: unlabeled: 1 of its 8 examples is also in the test set: row 3\n"
        f"  try: train is {folder}/train.npz, test is {folder}/test.npz, unlabeled is {folder}/pool.npz"
    )


def test_a_python_task_may_bring_a_pool(tmp_path, monkeypatch):
    np.savez(tmp_path / "a.npz", x=X, y=Y, test=TEST_X, pool=POOL)
    (tmp_path / "task_with_pool.py").write_text(
        "import numpy as np\nfrom edgekd.tasks.make import make_task\n"
        f"def build(**settings):\n    a = np.load({str(tmp_path / 'a.npz')!r})\n"
        "    return make_task('rows', train=(a['x'], a['y']), test=(a['test'], np.arange(9) % 3),\n"
        "                     layout='NHWC', unlabeled=a['pool'], **settings)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    section = PythonTask(name="python:task_with_pool:build", validation_fraction=0.2)
    task = build_task(section, base_dir=tmp_path, seed=0)
    assert task.fingerprint == make(POOL).fingerprint
    assert task.train.rows[-1] == 66


def replaced(task, **changes):
    return dataclasses.replace(task, train=dataclasses.replace(task.train, **changes))


def test_what_can_be_wrong_with_a_pool_in_a_task_by_hand():
    task = make(POOL)
    assert task_problems(task) == []
    x = task.train.x.copy()
    x[50] = task.test.x[3]
    assert task_problems(replaced(task, x=x)) == [
        "unlabeled: 1 of its 7 examples is also in the test set: row 2"
    ]
    y = task.train.y.copy()
    y[50] = -2
    assert task_problems(replaced(task, y=y)) == [
        "train: label -2 of example 50 is negative; labels count from 0"
    ]
    assert task_problems(replaced(task, y=np.full_like(y, -1))) == ["train: no example has a label"]
    lost = dataclasses.replace(task.validation, y=np.full_like(task.validation.y, -1))
    assert task_problems(dataclasses.replace(task, validation=lost)) == [
        "validation: label -1 of example 0 is negative; labels count from 0"
    ]
    assert task_problems(replaced(task, rows=np.arange(3))) == [
        "train: rows is no int64 array of the shape (55,)"
    ]
