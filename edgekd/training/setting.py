"""What an objective is built for: the networks with the shapes at their taps, and the task."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from edgekd.distillation.setting import Role, Setting, State
from edgekd.networks.taps import tap_shapes, taps_of
from edgekd.tasks.task import Task
from edgekd.training.sources import StoredAnswers


def setting_of(
    network: nn.Module,
    sources: Mapping[str, nn.Module | None],
    task: Task,
    *,
    heads: Mapping[str, State] = {},
) -> Setting:
    """The setting of a training; every network runs once on two examples.

    Args:
        network: the one that learns.
        sources: those that teach, by name; None where there is none.
        task: what is learned.
        heads: kind of a term -> state of its head on the frozen teacher.
    """
    example_BC = torch.from_numpy(task.normalize(task.train.x[:2]))

    def role(name: str, one: nn.Module) -> Role:
        if isinstance(one, StoredAnswers):
            return Role(name, one, {}, views=one.views)
        device = next(one.parameters(), example_BC).device
        return Role(name, one, tap_shapes(one, example_BC.to(device)), taps_of(one))

    return Setting(
        student=role("student", network),
        sources={name: role(name, one) for name, one in sources.items() if one is not None},
        num_classes=task.num_classes,
        count=len(task.train.y),
        views=task.views,
        heads=heads,
    )
