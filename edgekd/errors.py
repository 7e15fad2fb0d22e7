"""The family of errors: what happened, where, and what to try.

EdgekdError                      exit
├── UsageError                    2   the command line or the call is off
├── DocumentError                 2   a file is not what it says: every problem of the file at once
├── DataError                     2   a data set cannot be used
├── NetworkError                  2   a network cannot be built, traced or given these weights
├── RunFolderError                2   a run folder is locked, foreign or damaged
├── BundleError                   2   a bundle or graph is incomplete, altered or unsafe
├── MissingError                  3   something is not installed
├── DeviceError                   3   a device cannot be used
├── TrainingError                 4   training failed
│   └── DivergedError             4   the loss is no longer a number
├── ConversionError               4   a graph could not be made, or is not what was asked for
├── MeasurementError              4   a measurement failed
├── StorageError                  4   a file could not be written (full disk, no permission)
└── StoppedError                  0   the time that was given is used up; the same call goes on from here

A failed gate is no error: it is a Verdict. The command line alone turns errors into text and exit codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class EdgekdError(Exception):
    """Base of everything edgekd raises on purpose.

    `message` says what happened, `where` names the file, key, module or device, `hint` says what to try.
    """

    exit_code = 4

    def __init__(self, message: str, *, where: str | Path | None = None, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.where = None if where is None else str(where)
        self.hint = hint

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        hint = f"\n  try: {self.hint}" if self.hint else ""
        return f"{where}{self.message}{hint}"


class UsageError(EdgekdError):
    """The command line or the call is off."""

    exit_code = 2


class DocumentError(EdgekdError):
    """A file is not what it says; `problems` holds one line for each thing that is wrong with it."""

    exit_code = 2

    def __init__(self, where: str | Path, problems: Sequence[str], *, hint: str | None = None) -> None:
        self.problems = tuple(problems)
        count = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__("\n  ".join([count, *self.problems]), where=where, hint=hint)


class DataError(EdgekdError):
    """A data set cannot be used."""

    exit_code = 2


class NetworkError(EdgekdError):
    """A network cannot be built, traced, or given these weights."""

    exit_code = 2


class RunFolderError(EdgekdError):
    """A run folder is locked by another process, belongs to something else, or is damaged."""

    exit_code = 2


class BundleError(EdgekdError):
    """A bundle or graph is incomplete, was altered, or is not safe to load."""

    exit_code = 2


class MissingError(EdgekdError):
    """Something that this work needs is not installed."""

    exit_code = 3


class DeviceError(EdgekdError):
    """A device cannot be reached or used."""

    exit_code = 3


class TrainingError(EdgekdError):
    """Training failed."""


class DivergedError(TrainingError):
    """The loss is no longer a finite number."""


class ConversionError(EdgekdError):
    """A graph could not be made, or is not what was asked for."""


class MeasurementError(EdgekdError):
    """A measurement failed."""


class StorageError(EdgekdError):
    """A file could not be written: the disk is full, or the folder is not writable."""


class StoppedError(EdgekdError):
    """The time that was given is used up: what is finished is kept, and the same call goes on from there."""

    exit_code = 0
