"""Tasks of the user's own, and everything that can be wrong with one."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from edgekd.documents.recipe import Augmentation, PythonTask
from edgekd.errors import DataError
from edgekd.tasks.make import make_task
from edgekd.tasks.python_task import task_problems
from edgekd.tasks.task import build_task

SOURCE = """
import numpy as np
from edgekd.tasks.make import make_task

def good(examples=40, **settings):
    x, y = np.random.default_rng(0).random((examples, 6)), np.arange(examples) % 4
    return make_task("rows", train=(x, y), test=(x[:8], y[:8]), layout="NC", **settings)

def bad_data(**settings):
    return good(examples=5, **settings)

def text(**settings):
    return "task"

def raises(**settings):
    return open("no_such_file")

def closed():
    return None
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "own_task.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "own_task", raising=False)


def build(function, **settings):
    section = PythonTask(name=f"python:own_task:{function}", **settings)
    return build_task(section, base_dir=Path("."), seed=5)


def test_the_function_gets_what_the_recipe_says():
    task = build("good", args={"examples": 80}, validation_fraction=0.5, augmentation=Augmentation(noise=0.2))
    assert task.name == "rows"
    assert [len(part.y) for part in (task.train, task.validation, task.test)] == [40, 40, 8]
    assert task.augmentation.noise == 0.2


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        ("goood", {}, "python:own_task:goood: module 'own_task' has no 'goood'; did you mean 'good'?"),
        ("text", {}, "python:own_task:text: returns a str; an edgekd Task is wanted"),
        (
            "raises",
            {},
            "python:own_task:raises: FileNotFoundError: [Errno 2] No such file or directory: 'no_such_file' "
            "(own_task.py:16)",
        ),
        (
            "closed",
            {},
            "python:own_task:closed: does not take these arguments: got an unexpected keyword argument "
            "'validation_fraction'\n  try: it is called with validation_fraction=, seed=, augmentation=",
        ),
        (
            "good",
            {"seed": 1},
            "python:own_task:good: args.seed is set by edgekd from the recipe; leave it out",
        ),
        ("bad_data", {}, "rows: train: class 1 has 1 example (and 2 more); a stratified split needs 2"),
    ],
)
def test_what_is_wrong_is_said(function, args, message):
    with pytest.raises(DataError) as caught:
        build(function, args=args)
    assert str(caught.value) == message


@pytest.fixture
def task():
    x, y = np.random.default_rng(0).random((40, 6)), np.arange(40) % 4
    return make_task("rows", train=(x, y), test=(x[:8], y[:8]), layout="NC", validation_fraction=0.2, seed=0)


def test_a_made_task_has_no_problems(task):
    assert task_problems(task) == []


def test_a_task_made_by_hand_gets_all_its_problems(task):
    train = dataclasses.replace(task.train, x=task.train.x[:, :4])
    validation = dataclasses.replace(task.validation, y=task.validation.y + 4)
    test = dataclasses.replace(task.test, x=task.test.x.astype(np.float64), y=task.test.y[:5])
    spec = task.input.model_copy(update={"std": (1.0, 0.0)})
    broken = dataclasses.replace(
        task, train=train, validation=validation, test=test, input=spec, classes=("a",)
    )
    assert task_problems(broken) == [
        "classes has 1 entries; two are needed",
        "input.mean and input.std have 6 and 2 entries for 6 channels",
        "input.std has an entry that is not above 0",
        "train: an example has shape (4,); input.shape is (6,)",
        "train: label 3 is out of range; there are 1 classes",
        "validation: label 7 is out of range; there are 1 classes",
        "test: x is float64; input.raw_dtype is float32",
        "test: x has 8 examples, y has 5 labels",
    ]


def test_a_task_with_an_unknown_layout(task):
    spec = task.input.model_copy(update={"layout": "CN"})
    assert task_problems(dataclasses.replace(task, input=spec)) == [
        "input.layout is CN; NC, NCL, NCHW, NCDHW are known"
    ]
