"""A task in two .npz files with arrays `x` and `y`. Files with pickled objects are refused."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from edgekd.documents.recipe import NpzTask
from edgekd.errors import DataError
from edgekd.tasks.checks import refuse
from edgekd.tasks.make import Examples, make_task
from edgekd.tasks.task import Task


def npz_task(section: NpzTask, *, base_dir: Path, seed: int) -> Task:
    """Read both files and make the task.

    Raises:
        DataError: a file is missing, is no .npz, lacks x or y, or cannot be used; with every problem.
    """
    paths = {"train": base_dir / section.train, "test": base_dir / section.test}
    parts: dict[str, Examples] = {}
    problems = []
    for part, path in paths.items():
        try:
            parts[part] = _read(path)
        except DataError as error:
            problems.append(f"{part}: {error}")
    refuse(problems, where="npz")
    try:
        return make_task(
            "npz",
            train=parts["train"],
            test=parts["test"],
            layout=section.layout,
            validation_fraction=section.validation_fraction,
            seed=seed,
            classes=section.class_names,
            augmentation=section.augmentation,
        )
    except DataError as error:
        hint = f"train is {paths['train']}, test is {paths['test']}"
        raise DataError(error.message, where=error.where, hint=hint) from None


def _read(path: Path) -> Examples:
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise DataError("is no .npz file", where=path, hint="numpy.savez(PATH, x=x, y=y) writes one")
        with np.load(path, allow_pickle=False) as arrays:
            return _arrays(arrays, path)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except MemoryError:
        raise DataError("does not fit into memory", where=path) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error


def _arrays(arrays: NpzFile, path: Path) -> Examples:
    missing = [key for key in ("x", "y") if key not in arrays.files]
    if missing:
        found = ", ".join(arrays.files) or "nothing"
        raise DataError(f"has no {' and no '.join(missing)}; it holds {found}", where=path)
    try:
        return arrays["x"], arrays["y"]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError("holds pickled Python objects, which could run code: refused", where=path) from error
