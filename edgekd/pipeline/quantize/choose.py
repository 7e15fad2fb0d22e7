"""Which arm ships: the first of the recipe's within the budget on validation, else the best of them."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.documents.quantization import QuantizedArm
from edgekd.documents.scheme import Scheme
from edgekd.errors import UsageError
from edgekd.pipeline.context import Context
from edgekd.pipeline.quantize.names import why_not
from edgekd.pipeline.quantize.sensitivity import mixed
from edgekd.pipeline.quantize.stages import Quantized, best_calibrated, fine_tuned
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import VALIDATION
from edgekd.pipeline.teachers import TeacherStages
from edgekd.tasks.task import Task
from edgekd.units import format_percent


@dataclass(frozen=True)
class Choice:
    """The quantized students that were made, the calibrated one first, and the one that ships."""

    made: tuple[Quantized, ...]
    ships: Quantized
    note: str
    """Why that one ships, for the report."""

    @property
    def stages(self) -> list[Stage]:
        """Their stages."""
        return [one.stage for one in self.made]


def choose(
    context: Context, task: Task, teacher: TeacherStages | None, student: Stage, scheme: Scheme
) -> Choice:
    """Try the recipe's arms in their order, until one is good enough."""
    section = context.recipe.quantization
    start = best_calibrated(context, task, student, scheme)
    made, tried = [start], []
    for arm in section.arms:
        one = start if arm == "ptq" else make(context, task, teacher, student, start, arm)
        tried.append(one)
        made += [one] if one is not start else []
        if one.drop_pt <= section.budget_pt:
            return Choice(tuple(made), one, _within(one, tried, context))
    best = max(tried, key=lambda one: one.top1)
    return Choice(tuple(made), best, _best(best, tried, context))


def make(
    context: Context,
    task: Task,
    teacher: TeacherStages | None,
    student: Stage,
    start: Quantized,
    arm: QuantizedArm,
) -> Quantized:
    """The quantized student of an arm other than `ptq`.

    Raises:
        UsageError: the recipe cannot have this arm.
    """
    reason = why_not(arm, context.recipe)
    if reason is not None:
        raise UsageError(f"'{arm}' cannot be done: {reason}", where="quantization.arms")
    if arm == "mixed":
        return mixed(context, task, student, start)
    return fine_tuned(context, task, teacher, student, start, arm, name=arm)


def _within(one: Quantized, tried: list[Quantized], context: Context) -> str:
    left = context.recipe.quantization.arms[len(tried) :]
    rest = f"; {' and '.join(left)} not needed" if left else ""
    return f"{_what(one)}, within the budget of {context.recipe.quantization.budget_pt:g}{rest}"


def _best(one: Quantized, tried: list[Quantized], context: Context) -> str:
    rest = "and the best that was tried" if len(tried) > 1 else "and nothing else was to be tried"
    return f"{_what(one)}, over the budget of {context.recipe.quantization.budget_pt:g}, {rest}"


def _what(one: Quantized) -> str:
    found = one.stage.json(VALIDATION)
    side = "above" if one.drop_pt < 0 else "below"
    return (
        f"{one.row} ships: {format_percent(found['top1'])} on {found['count']} validation examples, "
        f"{abs(one.drop_pt):.2f} points {side} the fp32 student"
    )
