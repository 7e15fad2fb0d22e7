"""How a run goes on, told on standard error: a bar that moves on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Self

from edgekd.cli import screen
from edgekd.pipeline.run_folder import Stage
from edgekd.units import format_percent

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from edgekd.training.result import EpochRecord


class Teller:
    """Says lines, and has bars while it is entered where standard error is a terminal."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars: Progress | None = None

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

    def _say(self, text: str) -> None:
        if not self._quiet:
            screen.note(text)


class ScreenListener(Teller):
    """Tells the user which stage is under way and how far it is."""

    def stage_started(self, name: str, what: str) -> None:
        """A stage is about to be made."""
        self._say(f"{name}: {what}")

    def stage_finished(self, name: str, stage: Stage) -> None:
        """A stage is there, made or found."""
        if stage.reused:
            self._say(f"{name}: done before, {stage.file.seconds:.1f} s then")
        else:
            self._say(f"{name}: done in {stage.file.seconds:.1f} s")

    def note(self, text: str) -> None:
        """Something that the user should know."""
        self._say(text)

    def training(self, name: str) -> TrainingListener:
        """Hears the epochs of a training stage."""
        return TrainingListener(name, self._say, self._bars)


class TrainingListener:
    """Hears the epochs of a training: an edgekd.training.progress.Progress."""

    def __init__(self, name: str, say: Callable[[str], None], bars: Progress | None) -> None:
        self._name = name
        self._say = say
        self._bars = bars
        self._bar: TaskID | None = None
        self._epochs = 0

    def on_start(self, epochs: int, done: int) -> None:
        """The training begins, or goes on after `done` epochs."""
        self._epochs = epochs
        if done:
            self._say(f"{self._name}: goes on after epoch {done} of {epochs}")
        if self._bars is not None:
            self._bar = self._bars.add_task(self._name, total=epochs, completed=done)

    def on_step(self, step: int, steps: int) -> None:
        """The bar moves by epochs; a step changes nothing that is shown."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch ended: the bar moves, or every tenth part of the way is a line."""
        if self._bars is not None and self._bar is not None:
            self._bars.update(self._bar, completed=record.epoch, description=self._line(record))
            if record.epoch == self._epochs:
                self._bars.remove_task(self._bar)
        if record.epoch == self._epochs or (self._bars is None and self._is_tenth(record.epoch)):
            self._say(f"{self._name}: {self._line(record)}")

    def on_warning(self, message: str) -> None:
        """Something that the user should know and that did not stop the training."""
        screen.warning(f"{self._name}: {message}")

    def _line(self, record: EpochRecord) -> str:
        loss = "" if record.loss is None else f", loss {record.loss:.3f}"
        if record.validation_top1 is None:
            judged = f"validation loss {record.validation_loss:.3f}"
        else:
            judged = f"validation top-1 {format_percent(record.validation_top1)}"
        return f"epoch {record.epoch} of {self._epochs}{loss}, {judged}"

    def _is_tenth(self, epoch: int) -> bool:
        return epoch * 10 // self._epochs > (epoch - 1) * 10 // self._epochs


def bars() -> Progress:
    """Bars on standard error that vanish when they are done."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeRemainingColumn(),
        console=screen.console(sys.stderr),
        transient=True,
    )
