"""The random-teacher control: a teacher that knows nothing.

Formula
    The teacher of the recipe with its seeded initial weights; the mean and variance of each batch
    normalization are those of the training examples, without augmentation.
Source
    Sarnthein et al., "Random Teachers are Good Teachers", ICML 2023.
Shapes
    does not apply
Defaults
    teacher.untrained = true, all else as in the arm that it is compared with; edgekd compare adds this arm.
Traps
    A student of a random teacher can beat an untaught one: soft targets smooth, and matching features sets a
    scale. Only what a trained teacher gives beyond that is knowledge.
    Fresh batch normalization (mean 0, variance 1) would give answers of a degenerate scale; hence the
    estimate.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from edgekd.tasks.task import Task
from edgekd.training.data import derive_seed

_EXAMPLES, _BATCH = 2048, 128


def estimate_statistics(network: nn.Module, task: Task, *, seed: int) -> None:
    """Set the statistics of every batch normalization to those of the training examples, in place.

    No weight changes; a network without batch normalization stays as it is.

    Args:
        network: on the CPU; its modes are put back.
        task: at most 2,048 examples of its training split are looked at.
        seed: of their choice.
    """
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    averaging = {norm: norm.momentum for norm in norms if norm.track_running_stats}
    modes = {module: module.training for module in network.modules()}
    network.eval()
    for norm in averaging:
        norm.reset_running_stats()
        norm.momentum = None  # a cumulative average: every batch counts alike
        norm.train()
    try:
        with torch.no_grad():
            for x_BC in _batches(task, seed) if averaging else ():
                network(x_BC)
    finally:
        for norm, momentum in averaging.items():
            norm.momentum = momentum
        for module, mode in modes.items():
            module.training = mode


def _batches(task: Task, seed: int) -> tuple[torch.Tensor, ...]:
    """Normalized training examples in batches of the same size, which a cumulative average wants."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "random teacher"))
    count = min(_EXAMPLES, len(task.train.x))
    chosen = torch.randperm(len(task.train.x), generator=generator)[: count - count % min(_BATCH, count)]
    return torch.split(torch.from_numpy(task.normalize(task.train.x[chosen.numpy()])), _BATCH)
