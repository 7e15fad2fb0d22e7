"""Somebody to tell who does not listen: a comparison makes no stages."""

from __future__ import annotations

from typing import Any

from edgekd.pipeline.run_folder import Stage


class Quiet:
    """A Listener that says nothing."""

    def stage_started(self, name: str, what: str) -> None:
        """Nothing."""

    def stage_finished(self, name: str, stage: Stage) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""

    def training(self, name: str) -> Any:
        """Nobody hears the epochs: nothing is trained."""
        raise AssertionError("a comparison trains nothing")
