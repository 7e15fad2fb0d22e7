"""A task in two .npz files with arrays `x` and `y`, and perhaps a third one with `x` alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgekd.documents.recipe import NpzTask
from edgekd.errors import DataError
from edgekd.tasks.arrays import read_arrays
from edgekd.tasks.checks import refuse
from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task

_WANTED = {"train": ("x", "y"), "test": ("x", "y"), "unlabeled": ("x",)}


def npz_task(section: NpzTask, *, base_dir: Path, seed: int) -> Task:
    """Read the files and make the task.

    Raises:
        DataError: a file is missing, is no .npz, lacks x or y, or cannot be used; with every problem.
    """
    given = {"train": section.train, "test": section.test, "unlabeled": section.unlabeled}
    paths = {part: base_dir / path for part, path in given.items() if path is not None}
    parts: dict[str, dict[str, NDArray[Any]]] = {}
    problems = []
    for part, path in paths.items():
        try:
            parts[part] = read_arrays(path, _WANTED[part])
        except DataError as error:
            problems.append(f"{part}: {error}")
    refuse(problems, where="npz")
    try:
        return make_task(
            "npz",
            train=(parts["train"]["x"], parts["train"]["y"]),
            test=(parts["test"]["x"], parts["test"]["y"]),
            layout=section.layout,
            validation_fraction=section.validation_fraction,
            seed=seed,
            classes=section.class_names,
            augmentation=section.augmentation,
            unlabeled=parts["unlabeled"]["x"] if "unlabeled" in parts else None,
        )
    except DataError as error:
        hint = ", ".join(f"{part} is {path}" for part, path in paths.items())
        raise DataError(error.message, where=error.where, hint=hint) from None
