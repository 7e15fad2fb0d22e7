"""Train every arm from the same teacher, with the same budget and seeds, and put them side by side.

The recipe's task, teacher and student stay; an arm takes the place of its `[distillation]`. The data are
split once, by the recipe's seed. Each arm is trained once for each of the seeds recipe.seed,
recipe.seed + 1, ..., which set the initial weights, the order and the augmentation. Every training is a stage
of the run folder, so that an interrupted comparison goes on, and one that gets another arm trains that arm
alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.devices.local import LocalDevice
from edgekd.documents.comparison import Comparison
from edgekd.documents.recipe import Recipe
from edgekd.documents.report import StageRecord
from edgekd.errors import StoppedError
from edgekd.extras import require
from edgekd.files import sha256_json, write_text
from edgekd.pipeline.compare.arms import Arm, read_arms
from edgekd.pipeline.compare.clock import TimedListener
from edgekd.pipeline.compare.judge import correct_in, judge
from edgekd.pipeline.compare.plot import write_plot
from edgekd.pipeline.compare.render import PLOT, to_markdown
from edgekd.pipeline.context import Context, Listener, learning_recipe
from edgekd.pipeline.provenance import versions
from edgekd.pipeline.run_folder import RunFolder, keep_recipe

if TYPE_CHECKING:
    from edgekd.pipeline.compare.train import Course


@dataclass(frozen=True)
class Request:
    """What is to be compared."""

    recipe: Path
    terms: str
    """The arms, as `read_arms` takes them."""
    seeds: int = 3
    """How many seeds, from the recipe's own on."""
    epochs: int | None = None
    """Epochs of every student; None takes the recipe's."""


def compare(
    request: Request, run: Path, listener: Listener, *, stop_after: float | None = None, fresh: bool = False
) -> Comparison:
    """Train what is not there yet, and compare; with every arm there, write the comparison into the folder.

    Args:
        request: what is to be compared.
        run: the run folder; that of `compress` with the same recipe will do, and lends its teacher.
        listener: hears how it goes.
        stop_after: seconds after which the work stops at the end of an epoch; the arms that are whole by then
            are compared, and nothing is written.
        fresh: throw finished stages away.

    Raises:
        EdgekdError: whatever is wrong with the request, the recipe, the data, a network or the run folder.
    """
    recipe, text = learning_recipe(request.recipe)
    require("matplotlib", extra="train", for_what="the plot of a comparison")
    context, arms = _context(request, recipe, run, TimedListener(listener, stop_after), fresh=fresh)
    course = _course(context, arms, request)
    with context.folder:
        keep_recipe(run, text, recipe.to_json())
        try:
            course.go()
        except StoppedError:
            listener.note("stopped: the time is used up")
        comparison = _comparison(context, arms, course)
        if comparison.finished:
            comparison.write(run / "comparison.json")
            write_text(run / "comparison.md", to_markdown(comparison))
            write_plot(comparison, run / PLOT)
    return comparison


def missing(request: Request, run: Path, listener: Listener, *, fresh: bool = False) -> list[str]:
    """The stages that `compare` would have to make, as far as they can be told; writes nothing."""
    recipe, _ = learning_recipe(request.recipe)
    context, arms = _context(request, recipe, run, listener, fresh=fresh, dry_run=True)
    return _course(context, arms, request).missing()


def _context(
    request: Request, recipe: Recipe, run: Path, listener: Listener, *, fresh: bool, dry_run: bool = False
) -> tuple[Context, tuple[Arm, ...]]:
    """What every stage is given, and the arms; the folder is that of the recipe as its file has it."""
    digest = sha256_json(recipe.model_dump(mode="json", by_alias=True))
    folder = RunFolder(run, recipe.name, recipe_sha256=digest, fresh=fresh)
    folder.check()
    recipe = recipe if request.epochs is None else _in_epochs(recipe, request.epochs)
    arms = read_arms(request.terms, recipe)
    recipe = _whole(recipe)
    return Context(recipe, request.recipe.resolve().parent, folder, listener, dry_run=dry_run), arms


def _whole(recipe: Recipe) -> Recipe:
    """The recipe with a student that ships whole: an exit is trained by one arm in many."""
    student = recipe.student.model_copy(update={"exit": None})
    return recipe.model_copy(update={"student": student})


def _in_epochs(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe with another number of epochs for the student; its milestones move along."""
    training = recipe.student.training
    milestones = tuple(max(1, round(one * epochs / training.epochs)) for one in training.milestones)
    training = training.model_copy(update={"epochs": epochs, "milestones": milestones})
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"training": training})})


def _course(context: Context, arms: tuple[Arm, ...], request: Request) -> Course:
    from edgekd.pipeline.compare.train import Course  # torch, at last

    seeds = tuple(context.recipe.seed + number for number in range(request.seeds))
    return Course(context, arms, seeds)


def _comparison(context: Context, arms: tuple[Arm, ...], course: Course) -> Comparison:
    """What has been trained, side by side."""
    results, flags = judge(course.trained)
    stages = [*course.teachers, *(stage for one in course.trained for stage in one.stages)]
    teacher = course.teacher
    return Comparison(
        name=context.recipe.name,
        finished=len(results) == len(arms),
        arms=results,
        seeds=course.seeds,
        epochs=context.recipe.student.training.epochs,
        test_examples=course.test_examples,
        teacher_top1=None if teacher is None else float(correct_in(teacher).mean()),
        flags=flags,
        notes=_notes(len(course.seeds)),
        recipe=context.recipe,
        stages=tuple(
            StageRecord(name=stage.file.name, key=stage.file.key, seconds=stage.file.seconds)
            for stage in stages
        ),
        versions=versions(),
        facts=LocalDevice().facts("onnxruntime"),
    )


def _notes(seeds: int) -> tuple[str, ...]:
    over = "seeds and test examples" if seeds > 1 else "test examples; one seed tells nothing of other seeds"
    return (
        "top-1 is that of the test split, in the epoch that validated best; the test split chose nothing",
        f"each interval is one of 95 % by itself, over other {over}",
        "of twenty arms that change nothing, one leaves zero out by luck",
        "the budget is counted in epochs; an arm that shows an example in several views computes more in one",
    )
