"""How a bench goes on, told on standard error: a bar a setting on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edgekd.cli import screen
from edgekd.cli.progress import bars
from edgekd.documents.bench import Setting
from edgekd.pipeline.bench.render import title_of

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class BenchListener:
    """Tells the user what is measured, from several threads; Rich's bars take a lock of their own."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Progress | None = None
        self._tasks: dict[Setting, TaskID] = {}
        self._started: dict[Setting, float] = {}

    def __enter__(self) -> Self:
        if sys.stderr.isatty() and not self._quiet:
            self._bars = bars()
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

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

    def _say(self, text: str) -> None:
        if not self._quiet:
            screen.note(text)
