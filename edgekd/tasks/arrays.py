"""Arrays in .npz files. Files with pickled objects are refused."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.npyio import NpzFile
from numpy.typing import NDArray

from edgekd.errors import DataError


def read_arrays(
    path: Path, wanted: Sequence[str], *, optional: Sequence[str] = ()
) -> dict[str, NDArray[Any]]:
    """The wanted arrays of a file, and of the optional ones those that are there; others are not read.

    Raises:
        DataError: the file is missing, is no .npz, lacks a wanted array, or holds pickled objects.
    """
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                example = ", ".join(f"{name}={name}" for name in wanted or optional[:1])
                hint = f"numpy.savez(PATH, {example}) writes one"
                raise DataError("is no .npz file", where=path, hint=hint)
        with np.load(path, allow_pickle=False) as arrays:
            return _arrays(arrays, path, wanted, optional)
    except FileNotFoundError:
        raise DataError("there is no such file", where=path) from None
    except MemoryError:
        raise DataError("does not fit into memory", where=path) from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"cannot be read: {error}", where=path) from error


def _arrays(
    arrays: NpzFile, path: Path, wanted: Sequence[str], optional: Sequence[str]
) -> dict[str, NDArray[Any]]:
    missing = [key for key in wanted if key not in arrays.files]
    if missing:
        found = ", ".join(arrays.files) or "nothing"
        raise DataError(f"has no {' and no '.join(missing)}; it holds {found}", where=path)
    try:
        return {key: arrays[key] for key in (*wanted, *optional) if key in arrays.files}
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError("holds pickled Python objects, which could run code: refused", where=path) from error
