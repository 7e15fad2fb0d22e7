"""How a bench goes on, told on standard error: a bar a setting on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edgekd.cli.progress import Teller
from edgekd.documents.bench import Setting
from edgekd.pipeline.bench.render import title_of

if TYPE_CHECKING:
    from rich.progress import TaskID


class BenchListener(Teller):
    """Tells the user what is measured, from several threads; Rich's bars take a lock of their own."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._tasks: dict[Setting, TaskID] = {}
        self._started: dict[Setting, float] = {}

    def started(self, setting: Setting, jobs: int) -> None:
        """A setting is about to be measured."""
        self._started[setting] = time.monotonic()
        if self._bars is not None:
            self._tasks[setting] = self._bars.add_task(title_of(setting), total=jobs)
        else:
            self._say(f"{title_of(setting)}: measuring")

    def job_done(self, setting: Setting) -> None:
        """One of its jobs was done."""
        if self._bars is not None:
            self._bars.advance(self._tasks[setting])

    def finished(self, setting: Setting, error: str | None) -> None:
        """It is measured, or could not be."""
        if self._bars is not None:
            self._bars.remove_task(self._tasks[setting])
        seconds = time.monotonic() - self._started[setting]
        how = f"done in {seconds:.1f} s" if error is None else f"failed after {seconds:.1f} s"
        self._say(f"{title_of(setting)}: {how}")

    def event(self, text: str) -> None:
        """Something that the user should know."""
        self._say(text)
