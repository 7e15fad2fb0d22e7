"""The stages of quantized distillation and differentiable quantization: weights of 4 bits in a codebook."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from edgekd.files import write_text
from edgekd.pipeline.context import Context
from edgekd.pipeline.learn import lesson_of
from edgekd.pipeline.networks import (
    WEIGHTS,
    keep_result,
    load_student,
    network_ingredients,
    objective_ingredients,
    training_ingredients,
)
from edgekd.pipeline.provenance import source_digest
from edgekd.pipeline.quantize.stages import worth_of
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import VALIDATION
from edgekd.pipeline.teachers import TeacherStages, load_teacher
from edgekd.quantization.codebook import Codebooks
from edgekd.quantization.codebook_file import write_codebooks
from edgekd.tasks.task import Task
from edgekd.training.codebook import (
    POINT_TRAINING,
    train_differentiable_quantization,
    train_quantized_distillation,
)

CODEBOOKS = "codebooks.safetensors"
BITS = 4


def in_codebooks(
    context: Context, task: Task, teacher: TeacherStages | None, student: Stage, *, name: str, learned: bool
) -> Stage:
    """The student with its weights in codes.

    `learned` trains the points (differentiable quantization), with the paper's small learning rate; otherwise
    the points are uniform and the weights train behind them (quantized distillation). Both as long as the
    recipe's fine-tuning, and by its weights.
    """
    training = context.recipe.quantization.training
    if learned:
        rate, decay = POINT_TRAINING.learning_rate, POINT_TRAINING.weight_decay
        training = training.model_copy(update={"learning_rate": rate, "weight_decay": decay})
    distillation = context.recipe.distillation
    lesson = lesson_of(context, task, distillation)
    made_by = ("pipeline/quantize/codebooks.py", "pipeline/quantize/stages.py", "quantization")
    ingredients = {
        "student": [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)],
        "teacher": None if teacher is None else teacher.ingredients,
        "bits": BITS,
        "learned": learned,
        **objective_ingredients(distillation),
        **training_ingredients(context, lesson, training, *made_by),
        "made_by": source_digest(*made_by),
    }
    train: Any = train_differentiable_quantization if learned else train_quantized_distillation

    def work(folder: Path) -> None:
        fp32 = load_student(context, task, student)
        result, codebooks = train(
            fp32,
            lesson,
            training,
            distillation,
            bits=BITS,
            teacher=None if teacher is None else load_teacher(context, lesson, teacher),
            checkpoint_dir=folder / "checkpoints",
            seed=context.recipe.seed,
            progress=context.listener.training(name),
            devices=training.devices,
        )
        write_codebooks(codebooks, folder / CODEBOOKS)
        worth = worth_of(task, fp32, decoded(context, task, student, codebooks))
        write_text(folder / VALIDATION, json.dumps(worth, indent=2) + "\n")
        keep_result(result.summary(), folder)

    what = "learn the points of codebooks" if learned else "fine-tune behind codebooks"
    return context.make(name, what, ingredients, work)


def decoded(context: Context, task: Task, student: Stage, codebooks: Codebooks) -> nn.Module:
    """The student with the weights that its codebooks say."""
    network = load_student(context, task, student)
    network.load_state_dict(codebooks.state())
    return network.eval()
