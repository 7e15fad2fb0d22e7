"""The stage `student`: distillation in floating point; teachers.py is before it, quantize/ after it.

Files of the pipeline that learn or export need torch; the commands import them late.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgekd.distillation.frozen_heads import untrained_heads
from edgekd.distillation.step import TEACHER
from edgekd.documents.recipe import Distillation
from edgekd.networks.weights import load_weights
from edgekd.pipeline.context import Context
from edgekd.pipeline.heads import HEAD, load_heads
from edgekd.pipeline.networks import (
    digest_of,
    example_input,
    given_weights,
    keep_network,
    network_ingredients,
    new_network,
    objective_ingredients,
    shipped,
    training_ingredients,
)
from edgekd.pipeline.provenance import source_digest
from edgekd.pipeline.quantize.scheme import scheme_of
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.teachers import TeacherStages, load_teacher, untried_teacher
from edgekd.quantization.prepare import prepare
from edgekd.tasks.fraction import fraction_of
from edgekd.tasks.task import Task, build_task
from edgekd.training.checks import check_objective
from edgekd.training.setting import setting_of
from edgekd.training.trainer import objective_for, train_network

_PLACE = "pipeline/learn.py"


def task_of(context: Context) -> Task:
    """The recipe's task."""
    return build_task(context.recipe.task, base_dir=context.base_dir, seed=context.recipe.seed)


def lesson_of(context: Context, task: Task, distillation: Distillation) -> Task:
    """The task with what the student may learn from: the fraction of its training split."""
    return fraction_of(task, distillation.data_fraction, seed=context.recipe.seed)


def try_out(context: Context, task: Task, objectives: Sequence[Distillation] = ()) -> None:
    """Build the networks and the objectives, load given files, and trace the student; nothing is kept.

    Args:
        context: what every stage is given.
        task: what is learned.
        objectives: those that students will learn by, where it is not the recipe's alone.

    Raises:
        NetworkError: a network cannot be built, traced, or given its weights.
        DataError: a file of answers does not answer to the task.
        UsageError: a term cannot work with these networks on these data.
    """
    role = context.recipe.student
    student = new_network(context, role, task)
    if (given := given_weights(context, role)) is not None:
        load_weights(student, given)
    for distillation in objectives or (context.recipe.distillation,):
        lesson = lesson_of(context, task, distillation)
        taught = distillation.needs_teacher
        teacher = untried_teacher(context, task, context.recipe.teacher, lesson=lesson) if taught else None
        setting = setting_of(student, {TEACHER: teacher}, lesson)
        setting = replace(setting, heads=untrained_heads(distillation, setting))
        objective = objective_for(setting, role.training, distillation, seed=context.recipe.seed)
        devices = role.training.devices
        check_objective(objective, lesson, role.training, processes=1 if devices == "auto" else devices)
    prepare(
        shipped(context, task, student, objective.state_dict()).eval(),
        example_input(task),
        scheme_of(context),
    )


def student(
    context: Context,
    task: Task,
    teacher: TeacherStages | None,
    heads: Sequence[Stage] = (),
    *,
    name: str = "student",
    distillation: Distillation | None = None,
    seed: int | None = None,
    watch_test: bool = False,
) -> Stage:
    """The student in floating point, distilled from the teacher.

    Args:
        context: what every stage is given.
        task: what is learned.
        teacher: the finished teacher; None where no term reads it.
        heads: the stages of the heads on the frozen teacher that the terms need.
        name: of the stage.
        distillation: the objective, where it is not the recipe's.
        seed: of the initial weights, the order and the augmentation, where it is not the recipe's.
        watch_test: whether each epoch's record notes the top-1 on the test split; nothing is chosen on it.
    """
    role = context.recipe.student
    distillation = distillation or context.recipe.distillation
    seed = context.recipe.seed if seed is None else seed
    lesson = lesson_of(context, task, distillation)
    given = given_weights(context, role)
    ingredients = {
        "network": network_ingredients(role),
        "given": digest_of(given),
        "teacher": None if teacher is None else teacher.ingredients,
        "heads": {stage.file.name: stage.file.files[HEAD] for stage in heads},
        **objective_ingredients(distillation),
        **training_ingredients(context, lesson, role.training, _PLACE),
        "seed": seed,
        "quantization": source_digest("quantization"),
        **({"watched": "test"} if watch_test else {}),
    }

    def work(folder: Path) -> None:
        network = new_network(context, role, task, seed=seed)
        if given is not None:
            load_weights(network, given)
        result = train_network(
            network,
            lesson,
            role.training,
            distillation,
            teacher=None if teacher is None else load_teacher(context, lesson, teacher),
            checkpoint_dir=folder / "checkpoints",
            seed=seed,
            progress=context.listener.training(name),
            devices=role.training.devices,
            heads=load_heads(heads),
            watch=task.test if watch_test else None,
            exit=role.exit,
        )
        keep_network(shipped(context, task, network, result.heads), result, folder, task)

    return context.make(name, f"distill the student {role.network}", ingredients, work)
