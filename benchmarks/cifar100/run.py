"""CIFAR-100 at the literature's setting, in slices of a few minutes that resume.

    python benchmarks/cifar100/run.py --pair wrn-40-2_wrn-16-2 --methods ce,kd,sskd --seconds 540

One slice trains the teacher, then each method for the first seed, then for the next; called again, it goes on
where it stopped, at the last finished epoch. A pair is a recipe beside this file; a method is one of `edgekd
methods list`, with its published values for that pair. All pairs share one run folder, so that a teacher is
trained once. Needs train.npz and test.npz with x (N, 32, 32, 3) uint8 and y in data/cifar100; they are no
part of edgekd.
What is finished goes into results.json, and from there into results.md (table.py). Beside the top-1 on the
test split of the epoch that validated best stands that of the epoch that tested best, which is what the
literature prints: every epoch's test top-1 is noted and nothing is chosen on it.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from table import HERE, RESULTS, key_of, write_table

from edgekd.cli.progress import ScreenListener
from edgekd.documents.recipe import Recipe
from edgekd.documents.training import Training
from edgekd.errors import StoppedError
from edgekd.pipeline.compare.arms import Arm, read_arms
from edgekd.pipeline.compare.clock import TimedListener
from edgekd.pipeline.compare.judge import correct_in
from edgekd.pipeline.compare.train import Course
from edgekd.pipeline.context import Context
from edgekd.pipeline.provenance import versions
from edgekd.pipeline.run_folder import RunFolder

Row = dict[str, Any]


def main() -> None:
    """Train until the time is used up, and write what is finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--pair", required=True, help="a recipe beside this file, such as wrn-40-2_wrn-16-2")
    parser.add_argument("--methods", default="ce,kd", help="separated by commas")
    parser.add_argument("--seconds", type=float, default=540, help="stop at the end of an epoch after these")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, help="of teacher and students, instead of the recipe's")
    parser.add_argument("--data", type=Path, help="folder of train.npz and test.npz, instead of the recipe's")
    parser.add_argument("--run", type=Path, default=Path("runs/cifar100"))
    parser.add_argument("--out", type=Path, default=HERE, help="folder of results.json and results.md")
    arguments = parser.parse_args()
    recipe = recipe_of(arguments.pair, arguments.epochs, arguments.data)
    arms = arms_of(arguments.methods, recipe)
    finished: list[Row] = []
    with ScreenListener() as screen, RunFolder(arguments.run, recipe.name) as folder:
        listener = TimedListener(screen, arguments.seconds)
        context = Context(recipe, HERE, folder, listener)
        try:
            for number in range(arguments.seeds):
                course = Course(context, arms, (recipe.seed + number,), watch_test=True)
                try:
                    course.go()
                finally:
                    finished += rows_of(course, arguments.pair, recipe)
        except StoppedError:
            screen.note("stopped, as the time is used up; the same command goes on from here")
    keep(finished, arguments.out)


def recipe_of(pair: str, epochs: int | None, data: Path | None) -> Recipe:
    """The recipe of a pair, with other epochs or data where these are given."""
    recipe = Recipe.read(HERE / f"{pair}.toml")
    if epochs is not None:
        roles = {
            name: role.model_copy(update={"training": _in_epochs(role.training, epochs)})
            for name, role in (("teacher", recipe.teacher), ("student", recipe.student))
        }
        recipe = recipe.model_copy(update=roles)
    if data is not None:
        files = {part: data.resolve() / f"{part}.npz" for part in ("train", "test")}
        recipe = recipe.model_copy(update={"task": recipe.task.model_copy(update=files)})
    return recipe


def _in_epochs(training: Training, epochs: int) -> Training:
    milestones = tuple(max(1, round(one * epochs / training.epochs)) for one in training.milestones)
    return training.model_copy(update={"epochs": epochs, "milestones": milestones})


def arms_of(methods: str, recipe: Recipe) -> tuple[Arm, ...]:
    """The methods that are asked for, and the arms that guide these; controls only where asked for."""
    asked = set(methods.split(","))
    arms = read_arms(methods, recipe)
    guides = {arm.guide.name for arm in arms if arm.guide is not None and arm.name in asked}
    return tuple(arm for arm in arms if arm.name in asked | guides | ({"ce"} if guides else set()))


def rows_of(course: Course, pair: str, recipe: Recipe) -> Iterator[Row]:
    """What is finished of a course, as rows of the results."""
    made = versions()
    common = {
        "pair": pair,
        "epochs": recipe.student.training.epochs,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else platform.machine(),
        "versions": {name: made.packages[name] for name in ("edgekd", "torch")},
        "commit": made.edgekd_commit,
    }
    if course.teacher is not None:
        top1 = float(correct_in(course.teacher).mean())
        yield {"method": "teacher", "seed": recipe.seed, "test_top1": top1, **common}
    for trained in course.trained:
        for training in trained.trainings:
            result = training.student.json("result.json")
            yield {
                "method": trained.arm.name,
                "seed": training.seed,
                "test_top1": float(correct_in(training.answers).mean()),
                "best_on_test": max(record["watched_top1"] for record in result["history"]),
                "validation_top1": result["validation_top1"],
                "best_epoch": result["best_epoch"],
                "seconds": round(sum(record["seconds"] for record in result["history"]), 1),
                "head_seconds": round(sum(stage.file.seconds for stage in trained.heads), 1),
                "precision": result["precision"],
                **common,
            }


def keep(rows: list[Row], out: Path) -> None:
    """Add rows to the results, in the place of older ones of the same training, and write the table."""
    path = out / RESULTS
    older = json.loads(path.read_text())["rows"] if path.is_file() else []
    kept = {key_of(row): row for row in [*older, *rows]}
    path.write_text(json.dumps({"rows": [kept[key] for key in sorted(kept)]}, indent=2) + "\n")
    write_table(out)


if __name__ == "__main__":
    main()
