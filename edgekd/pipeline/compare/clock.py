"""Stop a long comparison in good order: at the end of an epoch, whose checkpoint is there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from edgekd.errors import StoppedError
from edgekd.pipeline.context import Listener
from edgekd.pipeline.run_folder import Stage

if TYPE_CHECKING:
    from edgekd.training.result import EpochRecord


class TimedListener:
    """Passes everything on to a listener, and stops the work once its time is used up.

    At least one epoch or stage is done first, so that calls with little time still come to an end. A training
    in several processes is stopped before or after it only.
    """

    def __init__(
        self, listener: Listener, seconds: float | None, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._listener = listener
        self._now = now
        self._ends = None if seconds is None else now() + seconds
        self._worked = False
        self._thread = threading.get_ident()

    def stage_started(self, name: str, what: str) -> None:
        """Stop before a stage that would begin too late."""
        self._stop_if_late()
        self._listener.stage_started(name, what)

    def stage_finished(self, name: str, stage: Stage) -> None:
        """A stage is there."""
        self._worked |= not stage.reused
        self._listener.stage_finished(name, stage)

    def note(self, text: str) -> None:
        """Pass it on."""
        self._listener.note(text)

    def training(self, name: str) -> Any:
        """A Progress that stops after an epoch."""
        return _TimedProgress(self._listener.training(name), self._epoch_ended)

    def _epoch_ended(self) -> None:
        self._worked = True
        if threading.get_ident() == self._thread:  # several processes are heard in another, see Relay
            self._stop_if_late()

    def _stop_if_late(self) -> None:
        if self._worked and self._ends is not None and self._now() >= self._ends:
            raise StoppedError("the time is used up")


class _TimedProgress:
    """An edgekd.training.progress.Progress that tells when an epoch has ended, its checkpoint written."""

    def __init__(self, progress: Any, epoch_ended: Callable[[], None]) -> None:
        self._progress = progress
        self._epoch_ended = epoch_ended
        self._epochs = 0

    def on_start(self, epochs: int, done: int) -> None:
        """The training begins, or goes on."""
        self._epochs = epochs
        self._progress.on_start(epochs, done)

    def on_step(self, step: int, steps: int) -> None:
        """Pass it on."""
        self._progress.on_step(step, steps)

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended; after the last one the stage is finished first."""
        self._progress.on_epoch(record)
        if record.epoch < self._epochs:
            self._epoch_ended()

    def on_warning(self, message: str) -> None:
        """Pass it on."""
        self._progress.on_warning(message)
