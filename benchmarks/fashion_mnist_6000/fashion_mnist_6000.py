"""Fashion-MNIST with 6,000 of its training images: `python:fashion_mnist_6000:task`.

The same 600 images of each class whatever the recipe's seed, so that seeds differ in training alone; the
10,000 test images are whole. Needs train.npz and test.npz with x uint8 (N, 28, 28, 1) and y in
data/fashion_mnist (Xiao et al., MIT); they are no part of edgekd.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task

PER_CLASS = 600
DATA = Path(__file__).resolve().parents[2] / "data" / "fashion_mnist"
CLASSES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)


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
        "fashion-mnist, 6,000 images",
        train=(x[chosen], y[chosen]),
        test=parts["test"],
        layout="NHWC",
        classes=CLASSES,
        **settings,
    )


def subset(y_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of PER_CLASS examples of each class, in random order; always the same."""
    rng = np.random.default_rng(0)
    of_class = [np.flatnonzero(y_N == label) for label in range(len(CLASSES))]
    chosen = [rng.choice(indices, PER_CLASS, replace=False) for indices in of_class]
    return rng.permutation(np.concatenate(chosen))
