"""`edgekd sensitivity`: the way of a recipe up to its calibrated student, then which layers to spare."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekd.documents.sensitivity import Sensitivity
from edgekd.files import sha256_json
from edgekd.pipeline.compress import prepare_recipe, to_student
from edgekd.pipeline.context import Context, Listener
from edgekd.pipeline.run_folder import RunFolder, keep_recipe

if TYPE_CHECKING:
    from edgekd.pipeline.run_folder import Stage


@dataclass(frozen=True)
class Result:
    """What was found, and the file in the run folder that holds its scheme."""

    document: Sensitivity
    scheme: Path


def find_sensitivity(recipe_path: Path, run: Path, listener: Listener, *, force: bool = False) -> Result:
    """Find the smallest set of layers to spare, and write the figures and the scheme into the run folder.

    Args:
        recipe_path: the recipe.
        run: the run folder.
        listener: hears how it goes on.
        force: whether a scheme that the user edited is written over.

    Raises:
        EdgekdError: whatever is wrong with the recipe, the data, a network or the run folder.
    """
    recipe, text = prepare_recipe(recipe_path)
    digest = sha256_json(recipe.model_dump(mode="json", by_alias=True))
    folder = RunFolder(run, recipe.name, recipe_sha256=digest)
    folder.check()
    context = Context(recipe, recipe_path.resolve().parent, folder, listener)
    with folder:
        keep_recipe(run, text, recipe.to_json())
        stage = _make(context)
        return _publish(stage, run, force=force)


def _make(context: Context) -> Stage:
    from edgekd.pipeline import learn  # torch, at last
    from edgekd.pipeline.quantize.examples import try_out
    from edgekd.pipeline.quantize.scheme import settled_scheme
    from edgekd.pipeline.quantize.sensitivity import sensitivity
    from edgekd.pipeline.quantize.stages import best_calibrated

    task = learn.task_of(context)
    try_out(context, task)
    _, _, student = to_student(context, task)
    scheme, _ = settled_scheme(context, task, student)
    start = best_calibrated(context, task, student, scheme)
    return sensitivity(context, task, student, start)


def _publish(stage: Stage, run: Path, *, force: bool) -> Result:
    from edgekd.pipeline.quantize.sensitivity import SENSITIVITY, publish

    place = publish(stage, run, force=force)
    return Result(Sensitivity.read(run / SENSITIVITY), place)
