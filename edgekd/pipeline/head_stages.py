"""Make the stages of heads.py: train what the recipe's terms need on the frozen teacher."""

from __future__ import annotations

from pathlib import Path

import safetensors.torch

from edgekd.distillation.frozen_heads import HeadedTerm, headed_terms
from edgekd.documents.recipe import Distillation
from edgekd.files import write_bytes
from edgekd.pipeline.context import Context
from edgekd.pipeline.heads import HEAD, PREFIX
from edgekd.pipeline.networks import keep_result, training_ingredients
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.teachers import TeacherStages, load_teacher
from edgekd.tasks.task import Task
from edgekd.tasks.unlabeled import labeled_part
from edgekd.training.heads import train_heads


def heads(
    context: Context, task: Task, teacher: TeacherStages, distillation: Distillation | None = None
) -> list[Stage]:
    """The stages `heads-KIND` that the terms of an objective need; none for most objectives.

    Args:
        context: what every stage is given.
        task: what is learned; of its training split the labeled part, as the teacher.
        teacher: the finished teacher.
        distillation: the objective, where it is not the recipe's.

    Raises:
        UsageError: two terms of a kind ask for different heads, or the teacher or the task lacks a tap or a
            view.
    """
    sections = headed_terms(distillation or context.recipe.distillation)
    return [_head(context, labeled_part(task), teacher, one) for one in sections]


def _head(context: Context, task: Task, teacher: TeacherStages, section: HeadedTerm) -> Stage:
    name = PREFIX + section.kind
    ingredients = {
        "teacher": teacher.ingredients,
        "head": {key: value for key, value in section.head().items() if key != "head_training"},
        **training_ingredients(context, task, section.head_training, "pipeline/head_stages.py"),
    }

    def work(folder: Path) -> None:
        state, result = train_heads(
            load_teacher(context, task, teacher),
            task,
            section,
            checkpoint_dir=folder / "checkpoints",
            seed=context.recipe.seed,
            progress=context.listener.training(name),
        )
        copies = {key: value.contiguous() for key, value in state.items()}
        write_bytes(folder / HEAD, safetensors.torch.save(copies))
        keep_result(result.summary(), folder)

    return context.make(name, f"train the head of {section.kind} on the teacher", ingredients, work)
