"""A task of the user's own: `python:package.module:function`, which returns a Task."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from edgekd.documents.common import UNLABELED, InputSpec
from edgekd.documents.function import call_function
from edgekd.documents.recipe import PythonTask
from edgekd.errors import DataError
from edgekd.tasks.checks import example_problems, label_problems, refuse
from edgekd.tasks.fingerprint import fingerprint
from edgekd.tasks.layout import LAYOUTS
from edgekd.tasks.task import Split, Task
from edgekd.tasks.unlabeled import overlap_problems


def python_task(section: PythonTask, *, seed: int) -> Task:
    """Call the function and check the task that it returns.

    It is called with validation_fraction=, seed=, augmentation= and the entries of `task.args`; the first
    three are what `edgekd.tasks.make.make_task` wants, so that a function can pass them on as **settings.

    Raises:
        DataError: no such module or function, wrong arguments, an error in it, or no usable Task returned.
    """
    given = {
        "validation_fraction": section.validation_fraction,
        "seed": seed,
        "augmentation": section.augmentation,
    }
    for key in given:
        if key in section.args:
            raise DataError(f"args.{key} is set by edgekd from the recipe; leave it out", where=section.name)
    task = call_function(section.name, {**given, **section.args}, raises=DataError)
    if not isinstance(task, Task):
        raise DataError(f"returns a {type(task).__name__}; an edgekd Task is wanted", where=section.name)
    refuse(
        task_problems(task), where=section.name, hint="edgekd.tasks.make.make_task makes and checks a task"
    )
    # A key of the cache: what the function says of itself could be the same for other data.
    splits = (task.train, task.validation, task.test)
    return replace(task, fingerprint=fingerprint(splits, task.classes, task.input))


def task_problems(task: Task) -> list[str]:
    """Everything that is wrong with a task that was put together by hand; one line each."""
    spec = task.input
    problems = []
    wanted = {"input": InputSpec, "train": Split, "validation": Split, "test": Split, "fingerprint": str}
    for part, kind in wanted.items():
        found = type(getattr(task, part))
        if not issubclass(found, kind):
            problems.append(f"{part} is a {found.__name__}; a {kind.__name__} is wanted")
    if problems:
        return problems
    if spec.layout not in LAYOUTS:
        return [f"input.layout is {spec.layout}; {', '.join(LAYOUTS)} are known"]
    if len(task.classes) < 2:
        problems.append(f"classes has {len(task.classes)} entries; two are needed")
    if not len(spec.mean) == len(spec.std) == spec.shape[0]:
        problems.append(
            f"input.mean and input.std have {len(spec.mean)} and {len(spec.std)} entries for "
            f"{spec.shape[0]} channels"
        )
    if min(spec.std, default=1.0) <= 0:
        problems.append("input.std has an entry that is not above 0")
    for part in ("train", "validation", "test"):
        problems += _split_problems(part, getattr(task, part), task)
    return problems or _pool_problems(task)


def _pool_problems(task: Task) -> list[str]:
    unlabeled = task.train.y == UNLABELED
    if unlabeled.all():
        return ["train: no example has a label"]
    pool = task.train.x[unlabeled]
    return overlap_problems(pool, task.validation, task.test) if len(pool) else []


def _split_problems(part: str, split: Split, task: Task) -> list[str]:
    problems = example_problems(part, split.x, task.input.layout)
    if not problems and split.x.shape[1:] != task.input.shape:
        problems.append(
            f"{part}: an example has shape {split.x.shape[1:]}; input.shape is {task.input.shape}"
        )
    if not problems and split.x.dtype.name != task.input.raw_dtype:
        problems.append(f"{part}: x is {split.x.dtype}; input.raw_dtype is {task.input.raw_dtype}")
    if not problems and split.x.dtype not in (np.uint8, np.float32):
        problems.append(f"{part}: x is {split.x.dtype}; uint8 or float32 is wanted")
    labels = label_problems(part, split.y, split.x, lowest=UNLABELED if part == "train" else 0)
    if not labels and len(split.y) and split.y.max() >= len(task.classes):
        labels.append(f"{part}: label {split.y.max()} is out of range; there are {len(task.classes)} classes")
    return [*problems, *labels, *_row_problems(part, split)]


def _row_problems(part: str, split: Split) -> list[str]:
    rows, shape = split.rows, (len(split.x),)
    if rows is None:
        return []
    fits = isinstance(rows, np.ndarray) and rows.dtype == np.int64 and rows.shape == shape
    return [] if fits else [f"{part}: rows is no int64 array of the shape {shape}"]
