"""CIFAR-100 with 10,000 of its training images: `python:cifar100_10000:task`.

The same 100 images of each class whatever the recipe's seed, so that seeds differ in training alone; the
10,000 test images are whole. Needs train.npz and test.npz with x uint8 (N, 32, 32, 3) and y in data/cifar100
(Krizhevsky, 2009); they are no part of edgekd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task

CLASSES, PER_CLASS = 100, 100
DATA = Path(__file__).resolve().parents[2] / "data" / "cifar100"


def task(data: str = str(DATA), **settings: Any) -> Task:
    """The task.

    Args:
        data: folder of train.npz and test.npz.
        settings: what edgekd passes on from the recipe.
    """
    parts = {}
    for part in ("train", "test"):
        with np.load(Path(data) / f"{part}.npz", allow_pickle=False) as arrays:
            parts[part] = arrays["x"], arrays["y"]
    x, y = parts["train"]
    chosen = subset(y)
    return make_task(
        "cifar-100, 10,000 images",
        train=(x[chosen], y[chosen]),
        test=parts["test"],
        layout="NHWC",
        classes=tuple(map(str, range(CLASSES))),
        **settings,
    )


def subset(y_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of PER_CLASS examples of each class, in random order; always the same."""
    rng = np.random.default_rng(0)
    of_class = [np.flatnonzero(y_N == label) for label in range(CLASSES)]
    chosen = [rng.choice(indices, PER_CLASS, replace=False) for indices in of_class]
    return rng.permutation(np.concatenate(chosen))
