"""The examples that activation scales are set on: of the training split, or of a file of the user's own.

Needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgekd.documents.recipe import NpzTask
from edgekd.files import sha256_file
from edgekd.pipeline import learn
from edgekd.pipeline.context import Context
from edgekd.tasks.calibration import check_calibration, read_calibration
from edgekd.tasks.task import Task
from edgekd.tasks.unlabeled import labeled_part


@dataclass(frozen=True)
class CalibrationSet:
    """Where a recipe's calibration examples come from."""

    lesson: Task
    """What the student learned from, the labeled examples alone."""
    file: Path | None
    own: NDArray[np.float32] | None
    """Those of the file, normalized, (N, ...)."""
    count: int
    """How many are taken."""
    seed: int

    @property
    def ingredients(self) -> Mapping[str, Any]:
        """What a stage that calibrates is made of."""
        return {
            "examples": self.count,
            "seed": self.seed,
            "task": self.lesson.fingerprint,
            "file": None if self.file is None else sha256_file(self.file),
        }

    def take(self) -> Tensor:
        """The examples (N, ...), normalized, without augmentation, drawn by the seed."""
        if self.own is None:
            return training_examples(self.lesson, self.count, seed=self.seed)
        return torch.from_numpy(self.own[_drawn(len(self.own), self.count, self.seed)])

    def check(self) -> tuple[str, ...]:
        """Refuse examples of the user's own that cannot be right; returns what the user should know of them.

        Raises:
            DataError: they never vary, are not finite, or lie beyond the range of the training examples.
        """
        if self.own is None:
            return ()
        return check_calibration(self.own, self.lesson, where=str(self.file))


def calibration_set(context: Context, task: Task) -> CalibrationSet:
    """The calibration examples that a recipe asks for.

    Raises:
        DataError: the file is missing, or its examples have another shape or type than the training examples.
    """
    wanted, seed = context.recipe.quantization, context.recipe.seed
    lesson = labeled_part(learn.lesson_of(context, task, context.recipe.distillation))
    if wanted.calibration_file is None:
        count = min(wanted.calibration_examples, len(lesson.train.x))
        return CalibrationSet(lesson, None, None, count, seed)
    file, section = context.base_dir / wanted.calibration_file, context.recipe.task
    layout = section.layout if isinstance(section, NpzTask) else task.input.layout
    own = read_calibration(file, task, layout=layout)
    return CalibrationSet(lesson, file, own, min(wanted.calibration_examples, len(own)), seed)


def try_out(context: Context, task: Task) -> None:
    """Find what is wrong with networks, objective and calibration examples before hours of training.

    Raises:
        EdgekdError: whatever it is.
    """
    learn.try_out(context, task)
    calibration_set(context, task).check()


def training_examples(task: Task, count: int, *, seed: int) -> Tensor:
    """Normalized training examples (N, ...) without augmentation, drawn by the seed."""
    return torch.from_numpy(task.normalize(task.train.x[_drawn(len(task.train.x), count, seed)]))


def _drawn(total: int, count: int, seed: int) -> NDArray[np.int64]:
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    drawn: NDArray[np.int64] = order[:count].numpy()
    return drawn
