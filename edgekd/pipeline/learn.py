"""The stages that learn: student, calibration (PTQ), quantization-aware distillation (QAD); see teachers.py.

This file, those of the teacher and the heads, and export.py are the only ones of the pipeline that need
torch; the commands import them late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save

from edgekd.distillation.frozen_heads import untrained_heads
from edgekd.distillation.step import TEACHER
from edgekd.documents.recipe import Distillation
from edgekd.files import write_bytes, write_text
from edgekd.networks.weights import load_weights
from edgekd.pipeline.context import Context
from edgekd.pipeline.heads import HEAD, load_heads
from edgekd.pipeline.networks import (
    WEIGHTS,
    digest_of,
    example_input,
    given_weights,
    keep_network,
    keep_result,
    load_student,
    network_ingredients,
    new_network,
    objective_ingredients,
    shipped,
    training_ingredients,
)
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.teachers import TeacherStages, load_teacher, untried_teacher
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.tasks.fraction import fraction_of
from edgekd.tasks.task import Task, build_task
from edgekd.tasks.unlabeled import labeled_part
from edgekd.training.checks import check_objective
from edgekd.training.qad import train_quantized
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
    prepare(shipped(context, task, student, objective.state_dict()).eval(), example_input(task))


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


def post_training(context: Context, task: Task, student: Stage) -> Stage:
    """The calibrated student: the PTQ baseline, and where QAD starts.

    It is calibrated on labeled examples that the student learned from.
    """
    lesson = labeled_part(lesson_of(context, task, context.recipe.distillation))
    count = min(context.recipe.quantization.calibration_examples, len(lesson.train.x))
    ingredients = {
        "student": student.file.files[WEIGHTS],
        "network": network_ingredients(context.recipe.student),
        "examples": count,
        "seed": context.recipe.seed,
        "task": lesson.fingerprint,
        "source": source_digest("quantization", "networks", "tasks", "pipeline/networks.py", _PLACE),
        "versions": package_versions("torch"),
    }

    def work(folder: Path) -> None:
        quantized = new_quantized(context, task, student)
        order = torch.randperm(
            len(lesson.train.x), generator=torch.Generator().manual_seed(context.recipe.seed)
        )
        examples = torch.from_numpy(lesson.normalize(lesson.train.x[order[:count].numpy()]))
        calibrate(quantized, torch.split(examples, 128))
        _keep_quantized(quantized, folder)

    return context.make("ptq", f"calibrate on {count} examples", ingredients, work)


def quantization_aware(
    context: Context, task: Task, teacher: TeacherStages | None, student: Stage, ptq: Stage
) -> Stage:
    """The student fine-tuned with quantization in the loop."""
    training = context.recipe.quantization.training
    distillation = context.recipe.distillation
    lesson = lesson_of(context, task, distillation)
    ingredients = {
        "ptq": ptq.file.files[WEIGHTS],
        "student": [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)],
        "teacher": None if teacher is None else teacher.ingredients,
        **objective_ingredients(distillation),
        **training_ingredients(context, lesson, training, _PLACE),
        "quantization": source_digest("quantization"),
    }

    def work(folder: Path) -> None:
        quantized = load_quantized(context, task, student, ptq)
        result = train_quantized(
            quantized,
            lesson,
            training,
            distillation,
            student=load_student(context, task, student),
            teacher=None if teacher is None else load_teacher(context, lesson, teacher),
            checkpoint_dir=folder / "checkpoints",
            seed=context.recipe.seed,
            progress=context.listener.training("qad"),
            devices=training.devices,
        )
        _keep_quantized(quantized, folder)
        keep_result(result.summary(), folder)

    return context.make("qad", "fine-tune with quantization in the loop", ingredients, work)


def new_quantized(context: Context, task: Task, student: Stage) -> QuantizedNetwork:
    """The fp32 student with quantizers inserted, not yet calibrated."""
    return prepare(load_student(context, task, student), example_input(task))


def load_quantized(context: Context, task: Task, student: Stage, stage: Stage) -> QuantizedNetwork:
    """A quantized student as a stage left it."""
    quantized = new_quantized(context, task, student)
    quantized.load_state_dict(load_file(stage.path(WEIGHTS)))
    return quantized


def _keep_quantized(quantized: QuantizedNetwork, folder: Path) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in quantized.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(state))  # save_file hides a full disk behind an error of its own
    write_text(folder / "scales.json", json.dumps(quantized.scales(), indent=2) + "\n")
