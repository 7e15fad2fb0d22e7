"""What can be wrong with arrays of examples and labels. Every check gives its problems, one line each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.recipe import Augmentation
from edgekd.errors import DataError

_DTYPES = ("uint8", "int16", "float16", "float32", "float64")


def refuse(problems: Sequence[str], *, where: str, hint: str | None = None) -> None:
    """Raise one DataError with all the problems, if there are any."""
    if problems:
        heading = [f"{len(problems)} problems"] if len(problems) > 1 else []
        raise DataError("\n  ".join([*heading, *problems]), where=where, hint=hint)


def example_problems(part: str, x: object, layout: str) -> list[str]:
    """Whether x is no array, has another rank than the layout, is empty, of a wrong type, or not finite."""
    if not isinstance(x, np.ndarray):
        return [f"{part}: x is a {type(x).__name__}; a NumPy array is wanted"]
    problems = []
    if x.ndim != len(layout):
        problems.append(f"{part}: x has shape {x.shape}; layout {layout} has {len(layout)} axes")
    if x.size == 0:
        problems.append(f"{part}: x has shape {x.shape}, which is empty")
    if x.dtype.name not in _DTYPES:
        problems.append(f"{part}: x is {x.dtype}; {', '.join(_DTYPES)} are known")
    elif x.dtype.kind == "f" and x.size:
        problems += _not_finite(part, x)
    return problems


def _not_finite(part: str, x: NDArray[Any]) -> list[str]:
    with np.errstate(over="ignore"):
        bad = ~np.isfinite(x.astype(np.float32, copy=False))
    if not bad.any():
        return []
    first = int(np.flatnonzero(bad.reshape(len(x), -1).any(axis=1))[0])
    return [
        f"{part}: x has {int(bad.sum())} values that are NaN, infinite or beyond float32, "
        f"the first in example {first}"
    ]


def label_problems(part: str, y: object, x: object, *, lowest: int = 0) -> list[str]:
    """Whether y is no row of integers from `lowest` up, or has another length than x."""
    if not isinstance(y, np.ndarray):
        return [f"{part}: y is a {type(y).__name__}; a NumPy array is wanted"]
    if y.ndim != 1:
        return [f"{part}: y has shape {y.shape}; one label for each example is wanted, (N,)"]
    problems = []
    if isinstance(x, np.ndarray) and x.ndim and len(x) != len(y):
        problems.append(f"{part}: x has {len(x)} examples, y has {len(y)} labels")
    if y.dtype.kind not in "iu":
        problems.append(f"{part}: y is {y.dtype}; integer labels are wanted")
    elif len(y) and int(y.min()) < lowest:
        first = int(np.flatnonzero(y < lowest)[0])
        problems.append(f"{part}: label {y[first]} of example {first} is negative; labels count from 0")
    return problems


def class_problems(
    train_y: NDArray[Any], test_y: NDArray[Any], class_names: Sequence[str] | None
) -> list[str]:
    """A label without a name or never seen in training, a class with too few examples, only one class.

    The labels are checked already: rows of integers from 0 up.
    """
    if not len(train_y) or not len(test_y):
        return []  # said of x
    present, counts = np.unique(train_y, return_counts=True)
    names = int(present[-1]) + 1 if class_names is None else len(class_names)
    problems = []
    if class_names is not None:
        problems += [*_nameless("train", train_y, names), *_nameless("test", test_y, names)]
        test_y = test_y[test_y < names]
    unseen = np.setdiff1d(test_y, present)
    if len(unseen):
        problems.append(f"test: label {unseen[0]} never occurs in train{_more(len(unseen))}")
    if names < 2 or len(present) == 1:
        problems.append("train: only one class occurs; two are needed")
    problems += _thin(present, counts, names)
    if class_names is not None and len(set(class_names)) < len(class_names):
        twice = next(name for name in class_names if list(class_names).count(name) > 1)
        problems.append(f"class name '{twice}' is given twice")
    return problems


def _nameless(part: str, y: NDArray[Any], names: int) -> list[str]:
    beyond = np.flatnonzero(y >= names)
    if not len(beyond):
        return []
    first = int(beyond[0])
    return [f"{part}: label {y[first]} of example {first} is out of range; there are {names} class names"]


def _thin(present: NDArray[Any], counts: NDArray[np.int64], names: int) -> list[str]:
    """Classes with fewer than the two training examples that a split into training and validation needs."""
    in_range = present < names
    absent = names - int(in_range.sum())
    problems = []
    if absent:
        first = int(np.flatnonzero(np.append(present[in_range], -1) != np.arange(in_range.sum() + 1))[0])
        problems.append(
            f"train: no example has label {first}{_more(absent)}; labels count from 0, without gaps"
        )
    once = present[in_range & (counts < 2)]
    if len(once):
        problems.append(f"train: class {once[0]} has 1 example{_more(len(once))}; a stratified split needs 2")
    return problems


def _more(number: int) -> str:
    return f" (and {number - 1} more)" if number > 1 else ""


def augmentation_problems(augmentation: Augmentation, layout: str, shape: tuple[int, ...]) -> list[str]:
    """A change that this kind of input cannot take; `layout` and `shape` (with N) are the graph's."""
    problems = []
    if layout != "NCHW":
        if augmentation.flip:
            problems.append(f"augmentation.flip is for images; the input's layout is {layout}")
        if augmentation.rotate_degrees:
            problems.append(f"augmentation.rotate_degrees is for images; the input's layout is {layout}")
    if augmentation.crop and layout == "NC":
        problems.append("augmentation.crop moves along an axis; the input's layout, NC, has none besides C")
    elif augmentation.crop and augmentation.crop >= min(shape[2:]):
        problems.append(
            f"augmentation.crop = {augmentation.crop} can push an example of {shape[1:]} out of sight"
        )
    return problems
