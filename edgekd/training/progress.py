"""Who hears how a training goes on. The library itself never prints."""

from __future__ import annotations

from typing import Protocol

from edgekd.training.result import EpochRecord


class Progress(Protocol):
    """Called from the training loop, in the process that started it."""

    def on_start(self, epochs: int, done: int) -> None:
        """The training begins; `done` of `epochs` were found in a checkpoint."""

    def on_step(self, step: int, steps: int) -> None:
        """Step `step` of the epoch's `steps` was issued; called often, so be quick."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended and was validated."""

    def on_warning(self, message: str) -> None:
        """Something that the user should know and that did not stop the training."""


class Silent:
    """Hears everything and says nothing."""

    def on_start(self, epochs: int, done: int) -> None:
        """Say nothing."""

    def on_step(self, step: int, steps: int) -> None:
        """Say nothing."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Say nothing."""

    def on_warning(self, message: str) -> None:
        """Say nothing."""
