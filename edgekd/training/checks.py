"""What would stop a training, or make it meaningless, found before its hours are spent."""

from __future__ import annotations

from collections.abc import Iterator

from edgekd.distillation.labels import UNLABELED
from edgekd.distillation.objective import Objective, Part
from edgekd.documents.recipe import QuantizedTraining, Training
from edgekd.errors import UsageError
from edgekd.tasks.task import Task
from edgekd.training.data import steps_per_epoch


def check_objective(
    objective: Objective, task: Task, section: Training | QuantizedTraining, *, processes: int = 1
) -> None:
    """See that the terms can work on these data in these batches, and that each epoch learns something.

    Raises:
        UsageError: one cannot, and names the first such term; or no part has a weight in some epoch.
    """
    _check_weights(objective, section.epochs)
    count = len(task.train.y)
    smallest = count // steps_per_epoch(count, section.batch_size, processes=processes) // processes
    unlabeled = bool((task.train.y == UNLABELED).any())
    for part in objective.parts:
        problems = [
            *_problems(part, smallest, unlabeled=unlabeled, processes=processes),
            *_warmup_problems(part, section.epochs),
            *(_start_problems(part, section.epochs) if isinstance(section, Training) else ()),
        ]
        for message, hint in problems:
            raise UsageError(message, where=f"term {part.name}", hint=hint)


def _check_weights(objective: Objective, epochs: int) -> None:
    idle = [epoch for epoch in range(1, epochs + 1) if not any(objective.weights(epoch, epochs))]
    if idle:
        raise UsageError(
            f"no part of it has a weight in epoch {idle[0]}: nothing would be learned",
            where="the objective",
            hint="give the labels a weight, or a term that begins with epoch 1",
        )


def _problems(part: Part, smallest: int, *, unlabeled: bool, processes: int) -> Iterator[tuple[str, str]]:
    """(what is wrong, what to try) for each thing that is."""
    term = part.term
    if smallest < term.smallest_batch:
        needed = f"needs batches of at least {term.smallest_batch} examples"
        yield f"{needed}; the smallest one here has {smallest}", "raise batch_size"
    if term.memory and processes > 1:
        each = f"{processes} processes would each remember only their own"
        yield f"remembers every training example, and {each}", "train on one device"
    if term.reads_labels and unlabeled:
        what = "reads the label of every example, and some of this task have none"
        yield what, "leave the unlabeled pool or the term out"


def _warmup_problems(part: Part, epochs: int) -> Iterator[tuple[str, str]]:
    warmup = part.term.warmup_epochs
    if 0 < epochs <= warmup:
        message = f"warms up for {warmup} epochs of a training of {epochs}: its weights would never count"
        yield message, "lower warmup_epochs, or train longer"


def _start_problems(part: Part, epochs: int) -> Iterator[tuple[str, str]]:
    start = 1 if part.section is None else part.section.start_epoch
    if start > epochs:
        message = f"takes part from epoch {start} on, in a training of {epochs}: it would never count"
        yield message, "lower start_epoch, train longer, or leave the term out"
