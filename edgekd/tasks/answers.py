"""A black-box teacher: only its answers are known, from a file.

Formula
    The teacher's logits for row n are ln p_n, with p_n its probabilities, no smaller than 1e-6 and then
    normalized; where it gave a label, 1e-6 for every other class. L is then that of any term over logits.
Source
    Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531 (soft targets);
    labels alone: pseudo-labels, Lee, ICML 2013 workshop.
Shapes
    probabilities (N, K) or labels (N,) for the N rows of the training file in its order, before anything is
    split off; unlabeled_probabilities or unlabeled_labels (M,) for those of the unlabeled pool;
    test_probabilities or test_labels for the test file, which are reported and never learned from;
    classes (K,): names of the classes in the teacher's order. digits: the images that are no test images.
Defaults
    kd at the temperature of the probabilities: T = 1 for labels, and for probabilities that are nearly 0 or
    1, since at T = 4 what was cut off at 1e-6 counts for more than what the teacher said.
Traps
    An answer is about the example as it stands in the file, and is given to every augmented view of it: a
    teacher that could be asked would answer otherwise. Keep the augmentation mild.
    Without `classes` the order of the columns is taken on trust; answers that agree with the labels far
    better in another order are refused.
    A term that reads features of the teacher, or its answers to turned images, cannot take part.
    Probabilities that were rounded to few digits, or top-1 only, tell little more than labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.common import UNLABELED
from edgekd.errors import DataError
from edgekd.tasks.arrays import read_arrays
from edgekd.tasks.checks import refuse
from edgekd.tasks.task import Task

FLOOR = 1e-6
"""The least probability of a class, before normalization."""
_SUM_TOLERANCE = 1e-2
_SHOWN = 10
_PREFIXES = ("", "unlabeled_", "test_")
_NAMES = tuple(prefix + form for prefix in _PREFIXES for form in ("probabilities", "labels"))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a black-box teacher said, as log-probabilities in the order of the task's classes."""

    rows_NK: NDArray[np.float32]
    """Of the rows of the training file, then of the unlabeled pool: what `Split.rows` counts."""
    test_NK: NDArray[np.float32] | None
    """Of the test examples, where they are known."""


def read_answers(path: Path, task: Task) -> Answers:
    """Read a file of answers to the examples of a task, which is whole: no fraction of one.

    Raises:
        DataError: the task does not know its rows, or the file does not answer to them; every problem.
    """
    counts = _counts(task)
    arrays = read_arrays(path, (), optional=(*_NAMES, "classes"))
    order = _order(arrays.get("classes"), task.classes, path)
    problems: list[str] = []
    parts = {}
    for prefix, count in counts.items():
        form = _form(arrays, prefix, count, problems)
        if form is not None:
            parts[prefix] = _log_probabilities(arrays[form], form, count, order, problems)
    refuse(problems, where=str(path))
    rows_NK = np.concatenate([parts[""], *([parts["unlabeled_"]] if "unlabeled_" in parts else [])])
    return Answers(rows_NK, parts.get("test_"))


def _counts(task: Task) -> dict[str, int]:
    """How many rows each part of the file answers to."""
    if task.train.rows is None or task.validation.rows is None:
        raise DataError(
            "does not say which rows of its file the examples are, so that they have no answers",
            where=f"task {task.name}",
            hint="edgekd.tasks.make.make_task notes them in Split.rows",
        )
    unlabeled = int((task.train.y == UNLABELED).sum())
    known = len(task.train.y) - unlabeled + len(task.validation.y)
    return {"": known, "unlabeled_": unlabeled, "test_": len(task.test.y)}


def _order(names: NDArray[Any] | None, classes: tuple[str, ...], path: Path) -> NDArray[np.int64]:
    """Which of the file's columns each class of the task is."""
    if names is None:
        return np.arange(len(classes))
    found = [str(name) for name in names.ravel()]
    strangers = [f"its class {place} is '{name}'" for place, name in enumerate(found) if name not in classes]
    lacking = [f"it lacks the class '{name}'" for name in classes if name not in found]
    twice = [f"it names '{name}' twice" for name in classes if found.count(name) > 1]
    differences = [*strangers, *lacking, *twice]
    if differences:
        raise DataError(
            f"answers for other classes than the task's: {differences[0]}",
            where=path,
            hint=f"the task's classes are {', '.join(classes[:_SHOWN])}{', ...' if classes[_SHOWN:] else ''}",
        )
    return np.array([found.index(name) for name in classes])


def _form(arrays: Mapping[str, NDArray[Any]], prefix: str, count: int, problems: list[str]) -> str | None:
    """The name of the array that answers to a part; None where there is none and none is needed."""
    names = [f"{prefix}{form}" for form in ("probabilities", "labels")]
    present = [name for name in names if name in arrays]
    if len(present) == 2:
        problems.append(f"has {names[0]} and {names[1]}; one of them is wanted")
    elif not present and prefix != "test_" and count:
        what = "unlabeled examples" if prefix else "rows in the training file"
        problems.append(f"has no {names[0]} and no {names[1]}; the task has {count} {what}")
    return present[0] if len(present) == 1 else None


def _log_probabilities(
    array: NDArray[Any], form: str, count: int, order: NDArray[np.int64], problems: list[str]
) -> NDArray[np.float32]:
    """(count, K) float32; what is wrong with the array is added to the problems."""
    classes = len(order)
    is_labels = form.endswith("labels")
    found = _label_problem(array, count, classes) if is_labels else _share_problem(array, count, classes)
    if found:
        problems.append(f"{form}: {found}")
        return np.zeros((0, classes), dtype=np.float32)
    p_NK = np.eye(classes)[array] if is_labels else array.astype(np.float64)
    p_NK = np.maximum(p_NK[:, order], FLOOR)
    log_NK: NDArray[np.float32] = np.log(p_NK / p_NK.sum(axis=1, keepdims=True)).astype(np.float32)
    return log_NK


def _label_problem(array: NDArray[Any], count: int, classes: int) -> str | None:
    if array.shape != (count,):
        return f"has the shape {array.shape}; {(count,)} is wanted: one for each row"
    if array.dtype.kind not in "iu":
        return f"is {array.dtype}; whole numbers are wanted"
    bad = np.flatnonzero((array < 0) | (array >= classes))
    return f"label {array[bad[0]]} of row {bad[0]} is none of the {classes} classes" if len(bad) else None


def _share_problem(array: NDArray[Any], count: int, classes: int) -> str | None:
    if array.shape != (count, classes):
        return f"has the shape {array.shape}; {(count, classes)} is wanted: a row each, a column a class"
    if array.dtype.kind != "f":
        return f"is {array.dtype}; floating-point numbers are wanted"
    sums_N = array.astype(np.float64).sum(axis=1)
    good_N = (array >= 0).all(axis=1) & (np.abs(sums_N - 1) <= _SUM_TOLERANCE)
    if good_N.all():
        return None
    first = int(np.flatnonzero(~good_N)[0])
    return f"row {first}, of sum {sums_N[first]:.4g}, holds no probabilities; take the softmax of logits"
