"""Make a task from arrays: check them, move the channels, split off the validation part, normalize."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Augmentation
from edgekd.tasks.checks import (
    augmentation_problems,
    class_problems,
    example_problems,
    label_problems,
    refuse,
)
from edgekd.tasks.fingerprint import fingerprint
from edgekd.tasks.layout import graph_layout, layout_problems, to_graph_layout
from edgekd.tasks.normalization import channel_mean_std
from edgekd.tasks.split import stratified_split
from edgekd.tasks.task import Split, Task
from edgekd.tasks.unlabeled import add_unlabeled, overlap_problems

Examples = tuple[NDArray[Any], NDArray[Any]]
"""x and y: examples (N, ...) and their labels (N,)."""


def make_task(
    name: str,
    *,
    train: Examples,
    test: Examples,
    layout: str,
    validation_fraction: float,
    seed: int,
    classes: Sequence[str] | None = None,
    augmentation: Augmentation = Augmentation(),
    unlabeled: NDArray[Any] | None = None,
) -> Task:
    """A task from a training part, of which the validation part is split off, and a test part.

    Args:
        name: what reports call the task.
        train: x and y to learn from; x is uint8, int16 or floating point, y integers from 0 up.
        test: x and y never seen in training.
        layout: the axes of both x: N, then C and L, HW or DHW in any order; without a C one channel is added.
        validation_fraction: part of `train` held out, stratified by class.
        seed: of that split.
        classes: names in the order of the labels; the labels' numbers when not given.
        augmentation: random changes of each training batch.
        unlabeled: x without labels, for the student alone; as the x of `train`.

    Returns:
        The task: x as uint8 if it was uint8, else as float32, channels first and C-contiguous.

    Raises:
        DataError: the arrays cannot be used, or unlabeled examples are in the test set or among those that
            are held out; with every problem found.
    """
    problems = _problems(train, test, layout, validation_fraction, classes, augmentation)
    refuse([*problems, *_unlabeled_problems(unlabeled, train[0], layout)], where=name)
    known, test_split = _to_split(train, layout), _to_split(test, layout)
    names = tuple(classes or (str(label) for label in range(int(known.y.max()) + 1)))
    kept, held = stratified_split(known.y, validation_fraction, seed)
    learned, validation = known.take(kept), known.take(held)
    spec = _input_spec(learned.x, graph_layout(layout))
    if unlabeled is not None:
        x = _to_examples(unlabeled, layout)
        refuse(overlap_problems(x, validation, test_split), where=name, hint="leave them out of the pool")
        learned = add_unlabeled(learned, x, first_row=len(known.y))
    splits = (learned, validation, test_split)
    return Task(name, names, spec, *splits, augmentation, fingerprint(splits, names, spec))


def _problems(
    train: Examples,
    test: Examples,
    layout: str,
    validation_fraction: float,
    classes: Sequence[str] | None,
    augmentation: Augmentation,
) -> list[str]:
    problems = layout_problems(layout)
    if not 0 < validation_fraction < 1:
        problems.append(f"validation_fraction is {validation_fraction}; it lies between 0 and 1")
    if problems:
        return problems
    x_problems = [*example_problems("train", train[0], layout), *example_problems("test", test[0], layout)]
    y_problems = [*label_problems("train", train[1], train[0]), *label_problems("test", test[1], test[0])]
    if not x_problems:
        x_problems = _shape_problems(train[0], test[0], layout, augmentation)
    if not y_problems:
        y_problems = class_problems(train[1], test[1], classes)
    return [*x_problems, *y_problems]


def _shape_problems(
    train_x: NDArray[Any], test_x: NDArray[Any], layout: str, augmentation: Augmentation
) -> list[str]:
    problems = []
    if train_x.shape[1:] != test_x.shape[1:]:
        problems.append(f"an example has shape {train_x.shape[1:]} in train and {test_x.shape[1:]} in test")
    if train_x.dtype != test_x.dtype:
        problems.append(f"x is {train_x.dtype} in train and {test_x.dtype} in test")
    shape = to_graph_layout(train_x, layout).shape
    return [*problems, *augmentation_problems(augmentation, graph_layout(layout), shape)]


def _unlabeled_problems(unlabeled: object, train_x: NDArray[Any], layout: str) -> list[str]:
    if unlabeled is None:
        return []
    problems = example_problems("unlabeled", unlabeled, layout) if not layout_problems(layout) else []
    if problems or not isinstance(unlabeled, np.ndarray) or not isinstance(train_x, np.ndarray):
        return problems
    if unlabeled.shape[1:] != train_x.shape[1:]:
        shapes = f"{train_x.shape[1:]} in train and {unlabeled.shape[1:]} in unlabeled"
        problems.append(f"an example has shape {shapes}")
    if unlabeled.dtype != train_x.dtype:
        problems.append(f"x is {train_x.dtype} in train and {unlabeled.dtype} in unlabeled")
    return problems


def _to_split(examples: Examples, layout: str) -> Split:
    x, y = examples
    return Split(_to_examples(x, layout), y.astype(np.int64), np.arange(len(y), dtype=np.int64))


def _to_examples(x: NDArray[Any], layout: str) -> NDArray[Any]:
    dtype = np.uint8 if x.dtype == np.uint8 else np.float32
    return np.ascontiguousarray(to_graph_layout(x, layout), dtype=dtype)


def _input_spec(x: NDArray[Any], layout: str) -> InputSpec:
    mean_C, std_C = channel_mean_std(x)
    return InputSpec(
        shape=x.shape[1:],
        layout=layout,
        raw_dtype=x.dtype.name,
        mean=tuple(mean_C.tolist()),
        std=tuple(std_C.tolist()),
    )
