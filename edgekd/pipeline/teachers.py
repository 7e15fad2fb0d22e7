"""The teacher of a recipe: a network, several, or a file of answers, each with its stages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.documents.teacher import Teacher
from edgekd.networks.weights import load_weights
from edgekd.pipeline.context import Context
from edgekd.pipeline.networks import given_weights, load_network, network_ingredients, new_network
from edgekd.pipeline.prove import load_array
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import ANSWERS, MEMBERS, RESULT
from edgekd.pipeline.teacher_stages import answers_stage, ensemble_stage, is_trained, network_stage
from edgekd.tasks.answers import read_answers
from edgekd.tasks.task import Task
from edgekd.tasks.unlabeled import labeled_part
from edgekd.training.ensemble import Ensemble
from edgekd.training.sources import StoredAnswers


@dataclass(frozen=True)
class TeacherStages:
    """The finished stages of a teacher."""

    role: Teacher
    """The section that they follow."""
    stages: tuple[Stage, ...]
    """Of each network, the main one first, then what they are worth; or of the file of answers."""

    @property
    def is_network(self) -> bool:
        """Whether there is a network, which can be exported and measured."""
        return self.role.answers is None

    @property
    def ingredients(self) -> list[Any]:
        """What a later stage's key holds of it: the same weights answer otherwise in another network."""
        networks = [network_ingredients(one) for one in self.role.networks]
        files = [dict(stage.file.files) for stage in self.stages]
        for one in files:
            one.pop(RESULT, None)  # how it went, with times
        return [files, networks]


def random_role(role: Teacher) -> Teacher:
    """The random-teacher control of a teacher: its main network, untrained."""
    changes = {"weights": None, "untrained": True, "members": (), "combine": "mean", "answers": None}
    return role.model_copy(update=changes)


def make_teacher(
    context: Context, task: Task, role: Teacher | None = None, *, name: str = "teacher"
) -> TeacherStages:
    """Make or find every stage of a teacher.

    Args:
        context: what every stage is given.
        task: what is learned; of its training split the labeled part.
        role: the section that it follows, where it is not the recipe's.
        name: of its stages: NAME, NAME-2, NAME-3, ... and NAME-ensemble.
    """
    role = role or context.recipe.teacher
    if role.answers is not None:
        return TeacherStages(role, (answers_stage(context, task, context.base_dir / role.answers, name),))
    task = labeled_part(task)
    made: dict[int, Stage] = {}
    # First those that can be found wrong at once: hours of training would be lost on them.
    for place in sorted(range(len(role.networks)), key=lambda place: is_trained(role.networks[place])):
        made[place] = network_stage(context, task, role.networks[place], name, place)
    networks = tuple(made[place] for place in range(len(made)))
    if len(networks) == 1:
        return TeacherStages(role, networks)
    return TeacherStages(role, (*networks, ensemble_stage(context, task, role, networks, name)))


def load_teacher(context: Context, task: Task, teacher: TeacherStages) -> nn.Module:
    """The finished teacher: a network, an ensemble, or the answers to the task's examples."""
    if not teacher.is_network:
        return _stored(torch.from_numpy(load_array(teacher.stages[0].path(ANSWERS))), task)
    networks = [
        load_network(context, task, role, stage)
        for role, stage in zip(teacher.role.networks, teacher.stages, strict=False)
    ]
    if len(networks) == 1:
        return networks[0]
    shares = [one["share"] for one in teacher.stages[-1].json(MEMBERS)["members"]]
    return Ensemble(networks, shares).eval()


def untried_teacher(context: Context, task: Task, role: Teacher, *, lesson: Task) -> nn.Module:
    """A teacher of the form that the finished one will have, with weights where they are given.

    Args:
        context: what every stage is given.
        task: what is learned, whole.
        role: the section that it follows.
        lesson: the task with what the student learns from, to which a file's answers are given.

    Raises:
        NetworkError: a network cannot be built, or given weights do not fit it.
        DataError: a file of answers does not answer to the task.
    """
    if role.answers is not None:
        answers = read_answers(context.base_dir / role.answers, task)
        return _stored(torch.from_numpy(answers.rows_NK), lesson)
    networks = []
    for one in role.networks:
        network = new_network(context, one, task)
        if (given := given_weights(context, one)) is not None:
            load_weights(network, given, classes=task.classes)
        networks.append(network.eval())
    return Ensemble(networks, [1.0] * len(networks)).eval() if len(networks) > 1 else networks[0]


def _stored(rows_NK: Tensor, task: Task) -> StoredAnswers:
    """The answers to the examples of a task, out of those to all rows of its file."""
    train, validation = task.train.rows, task.validation.rows
    assert train is not None, "reading the answers has seen to it"
    assert validation is not None
    return StoredAnswers(rows_NK[torch.from_numpy(train)], rows_NK[torch.from_numpy(validation)])
