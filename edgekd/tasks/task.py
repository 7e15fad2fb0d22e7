"""What a student learns: examples in three parts, the classes, and how an example becomes an input."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Augmentation, DigitsTask, NpzTask, PythonTask, TaskSection
from edgekd.tasks.views import offered_views


@dataclass(frozen=True, eq=False)
class Split:
    """Examples and their labels."""

    x: NDArray[Any]
    """Raw examples, uint8 or float32, (N, C, ...), C-contiguous."""
    y: NDArray[np.int64]
    """Labels, (N,), from 0 to K - 1; -1 for a training example that has none."""
    rows: NDArray[np.int64] | None = None
    """Which rows of their file the examples are, (N,); rows of an unlabeled pool go on where the training
    file ends. None where that is not known."""

    def take(self, indices: NDArray[np.int64]) -> Split:
        """Some of the examples, by their positions."""
        rows = None if self.rows is None else self.rows[indices]
        return Split(self.x[indices], self.y[indices], rows)


@dataclass(frozen=True, eq=False)
class Task:
    """Three disjoint parts of a data set. `make_task` builds one from arrays and checks it."""

    name: str
    """What reports call it."""
    classes: tuple[str, ...]
    """Names of the K classes, in the order of their labels."""
    input: InputSpec
    """Shape, layout, raw dtype, and the normalization computed on `train`."""
    train: Split
    """What is learned from."""
    validation: Split
    """What epochs and calibrators are chosen on."""
    test: Split
    """Never seen in training or in choosing."""
    augmentation: Augmentation
    """Random changes of each training batch."""
    fingerprint: str
    """sha256 of the three parts, the classes and the normalization."""

    @property
    def in_channels(self) -> int:
        """Channels C."""
        return self.input.shape[0]

    @property
    def num_classes(self) -> int:
        """Classes K."""
        return len(self.classes)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """One example without the batch axis, (C, ...)."""
        return self.input.shape

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views in which a batch can be shown."""
        return offered_views(self.input_shape, self.augmentation)

    @property
    def background(self) -> NDArray[np.float32]:
        """What lies outside of an example, normalized, (C,): raw 0 (black) for uint8, else the mean."""
        mean_C, std_C = np.array(self.input.mean), np.array(self.input.std)
        black = self.input.raw_dtype == "uint8"
        return (-mean_C / std_C if black else np.zeros_like(mean_C)).astype(np.float32)

    def normalize(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Raw examples (N, C, ...) -> (x - mean) / std by channel, float32, same shape."""
        per_channel = (-1, *[1] * (x.ndim - 2))
        mean = np.array(self.input.mean, dtype=np.float32).reshape(per_channel)
        std = np.array(self.input.std, dtype=np.float32).reshape(per_channel)
        normalized: NDArray[np.float32] = (x.astype(np.float32) - mean) / std
        return normalized


def build_task(section: TaskSection, *, base_dir: Path, seed: int) -> Task:
    """The task that a recipe asks for.

    Args:
        section: the recipe's `[task]`.
        base_dir: the folder that relative paths start from, which is the recipe's.
        seed: of the splits.

    Raises:
        DataError: the data cannot be used; with every problem found.
        MissingError: scikit-learn, which brings the digits, is not installed.
    """
    # These modules build a Task, so that they import this one; scikit-learn is loaded only for the digits.
    from edgekd.tasks.digits import digits_task
    from edgekd.tasks.npz import npz_task
    from edgekd.tasks.python_task import python_task

    match section:
        case DigitsTask():
            return digits_task(section, seed=seed)
        case NpzTask():
            return npz_task(section, base_dir=base_dir, seed=seed)
        case PythonTask():
            return python_task(section, seed=seed)
        case _:
            assert_never(section)
