"""What calibration data must be: real examples, in the units that the network was trained on.

Examples that are drawn from the training split pass by themselves, unless that is broken. The checks are for
examples of the user's own: a scale that was set on data of another range, or on data that never vary, ruins
the student in silence.

Range: of each example the largest, the least and the mean value and the standard deviation are compared with
those of training examples. Data are refused when half of them lie well beyond every training example in one
of the four, as bytes do where normalized values are wanted. A class, a speaker or a season that is
overrepresented does not do that, for training examples like it exist. A pooled spread that differs from the
training set's by more than a factor of two, as that of values scaled to [0, 1] may, can be such a choice: it
is told, not refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import DataError
from edgekd.tasks.arrays import read_arrays
from edgekd.tasks.checks import example_problems, refuse
from edgekd.tasks.layout import graph_layout, to_graph_layout
from edgekd.tasks.task import Task

REFERENCES = 2048
"""Training examples that calibration data are compared with."""
_SPREAD = 2.0
_FEWEST = 8
"""Examples whose spread says something."""
_SLACK = 0.25
"""How far beyond every training example an example may lie, in standard deviations of the training set: other
pictures of the same things need not be as bright as the brightest that are known."""


def read_calibration(path: Path, task: Task, *, layout: str) -> NDArray[np.float32]:
    """Calibration examples of the user's own, normalized as the task's, (N, C, ...).

    Args:
        path: an .npz file with an array `x`, as that of the training file.
        task: what the network was trained on.
        layout: the axes of x, as the training file has them.

    Raises:
        DataError: it is no such file, or its examples have another type than the training examples.
    """
    x = read_arrays(path, ["x"])["x"]
    refuse(example_problems("calibration", x, layout), where=str(path))
    dtype = "uint8" if x.dtype == np.uint8 else "float32"
    if dtype != task.input.raw_dtype:
        raise DataError(
            f"calibration examples are {x.dtype}; those of training are {task.input.raw_dtype}",
            where=path,
            hint="give them in the units of the training file: edgekd normalizes them itself",
        )
    examples = to_graph_layout(x, layout)
    _check_shape(examples, task.input_shape, where=str(path))
    return task.normalize(np.ascontiguousarray(examples))


def check_calibration(x: NDArray[Any], task: Task, *, where: str = "calibration data") -> tuple[str, ...]:
    """Refuse calibration data that cannot be right.

    Args:
        x: normalized examples (N, C, ...), as the network takes them.
        task: what the network was trained on.
        where: what an error calls them.

    Returns:
        What the user should know, a line each.

    Raises:
        DataError: there are none, they have another shape or type than the network's input, hold values that
            are not finite, never vary, or lie beyond the range of the training examples.
    """
    if len(x) == 0:
        raise DataError("there are no examples to calibrate with", where=where)
    _check_shape(x, task.input_shape, where=where)
    if x.dtype.name != task.input.dtype:
        raise DataError(f"examples are {x.dtype}; the network takes {task.input.dtype}", where=where)
    refuse(example_problems("calibration", x, graph_layout(task.input.layout)), where=where)
    refuse(list(_constant(x)), where=where, hint="give examples as different as those that will come")
    chosen = np.linspace(0, len(task.train.x) - 1, min(REFERENCES, len(task.train.x))).astype(np.int64)
    reference = task.normalize(task.train.x[chosen])
    refuse(list(_beyond(x, reference))[:1], where=where, hint="normalize them as the training examples were")
    return tuple(_spread_notes(x, reference))


def _check_shape(x: NDArray[Any], wanted: tuple[int, ...], *, where: str) -> None:
    if x.shape[1:] != wanted:
        raise DataError(f"an example has shape {x.shape[1:]}; the network takes {wanted}", where=where)


def _constant(x: NDArray[Any]) -> Iterator[str]:
    if x.min() == x.max():
        yield f"every value of the {len(x)} examples is {x.flat[0]:g}"
    elif len(x) > 1 and (x == x[:1]).all():
        yield f"all {len(x)} examples are the same one"


def _beyond(x: NDArray[Any], reference: NDArray[np.float32]) -> Iterator[str]:
    found, known = _statistics(x), _statistics(reference)
    for name, values in found.items():
        low, high = float(known[name].min()), float(known[name].max())
        typical = float(np.median(values))
        if not low - _SLACK <= typical <= high + _SLACK:
            yield (
                f"the {name} of an example is {typical:.3g} (median of {len(x)}); "
                f"that of a training example, normalized, is {low:.3g} to {high:.3g}"
            )


def _statistics(x: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """One number an example, each (N,)."""
    flat = x.reshape(len(x), -1)
    return {
        "largest value": flat.max(axis=1).astype(np.float64),
        "least value": flat.min(axis=1).astype(np.float64),
        "mean": flat.mean(axis=1, dtype=np.float64),
        "standard deviation": flat.std(axis=1, dtype=np.float64),
    }


def _spread_notes(x: NDArray[Any], reference: NDArray[np.float32]) -> Iterator[str]:
    ratio = float(x.std(dtype=np.float64) / reference.std(dtype=np.float64))
    if len(x) >= _FEWEST and not 1 / _SPREAD <= ratio <= _SPREAD:
        yield (
            f"calibration examples spread {ratio:.2g} times as wide as training examples: "
            "are they in the same units?"
        )
