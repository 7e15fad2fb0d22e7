"""The notes of a report: what a reader of its rows should know of how they came about."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.half import fp16_notes
from edgekd.documents.recipe import Recipe
from edgekd.documents.rewrites import RewriteDecisions
from edgekd.pipeline.artefacts import FP16, STUDENT, artefacts_in, why_it_ships
from edgekd.pipeline.prove import LABELS, load_array
from edgekd.pipeline.quantize.names import FINE_TUNED
from edgekd.pipeline.quantize.scheme import DECISIONS
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import MEMBERS, RESULT, TEST_ANSWERS
from edgekd.units import format_percent


def notes_of(recipe: Recipe, stages: Mapping[str, Stage]) -> tuple[str, ...]:
    """The notes of a run that has its graphs."""
    why = why_it_ships(stages["graphs"])
    return (
        *of_teacher(recipe, stages),
        *_of_data(recipe),
        why,
        *_of_rewrites(stages),
        *_of_qad(stages),
        *_flags(stages),
        *_of_half(stages["graphs"]),
    )


def of_teacher(recipe: Recipe, stages: Mapping[str, Stage]) -> Iterator[str]:
    """What a reader should know of who taught."""
    if not recipe.distillation.needs_teacher:
        yield "no term of the objective reads a teacher: none was made, and none has a row"
    elif recipe.teacher.answers is not None:
        yield from _of_answers(recipe.teacher.answers.name, stages["teacher"], stages["graphs"])
    elif recipe.teacher.members:
        yield _of_ensemble(stages["teacher-ensemble"])
    if recipe.distillation.needs_teacher and recipe.teacher.untrained:
        yield "the teacher was left untrained: a control, not a teacher"


def _of_answers(name: str, teacher: Stage, graphs: Stage) -> Iterator[str]:
    what = f"the teacher is the file of answers {name}, which has no row"
    if TEST_ANSWERS not in teacher.file.files:
        yield f"{what}; its answers to the test set are not known"
        return
    right_N = load_array(teacher.path(TEST_ANSWERS)).argmax(axis=1) == load_array(graphs.path(LABELS))
    yield f"{what}; {format_percent(float(right_N.mean()))} of its answers to the test set are right"


def _of_ensemble(ensemble: Stage) -> str:
    kept = ensemble.json(MEMBERS)

    def worth(one: Mapping[str, Any]) -> str:
        return f"{one['network']} {one['share']:.2f} (alone {format_percent(one['validation_top1'])})"

    members, together = ", ".join(map(worth, kept["members"])), format_percent(kept["validation_top1"])
    return f"the teacher is an ensemble, top-1 on validation {together}; {kept['combine']} of {members}"


def _of_data(recipe: Recipe) -> Iterator[str]:
    fraction = recipe.distillation.data_fraction
    if fraction < 1:
        yield f"the student learned from {format_percent(fraction)} of the training set"


def _of_qad(stages: Mapping[str, Stage]) -> Iterator[str]:
    for arm in FINE_TUNED:
        if arm in stages and stages[arm].json(RESULT)["best_epoch"] == 0:
            yield f"no epoch of {arm} validated better than the calibrated student: they are one network"


def _of_half(graphs: Stage) -> Iterator[str]:
    artefacts = artefacts_in(graphs)
    if any(artefact.row == FP16 for artefact in artefacts):
        student = next(artefact for artefact in artefacts if artefact.row == STUDENT)
        yield from (f"{FP16}: {note}" for note in fp16_notes(read_graph(graphs.path(student.graph))))


def _of_rewrites(stages: Mapping[str, Stage]) -> Iterator[str]:
    if "rewrites" not in stages:
        return
    for one in RewriteDecisions.model_validate(stages["rewrites"].json(DECISIONS)).measured:
        bounds = f"{one.interval.lower:.2f} to {one.interval.upper:.2f}"
        state = "on" if one.on else "off"
        yield f"{one.name} is {state}: with it the graph takes {one.ratio:.2f} times as long ({bounds})"


def _flags(stages: Mapping[str, Stage]) -> Iterator[str]:
    for name, stage in stages.items():
        if RESULT in stage.file.files:
            yield from (f"{name}: {flag}" for flag in stage.json(RESULT).get("flags", ()))
