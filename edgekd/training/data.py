"""The data set as two tensors on the training device, and the order in which an epoch walks through it.

Everything random in an epoch is seeded from (seed, epoch): a training that is taken up after an epoch draws
what the uninterrupted one would have drawn, and no generator's state has to be kept.
Axes: N examples of a split, B examples of a batch, C channels and the rest of an example.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.tasks.task import Split, Task

_PART = 1024


@dataclass(frozen=True)
class Resident:
    """A split, normalized once, on the training device."""

    x_NC: Tensor
    """(N, C, ...), float32."""
    y_N: Tensor
    """(N,), int64."""

    def __len__(self) -> int:
        return len(self.y_N)


def load_split(task: Task, split: Split, device: torch.device) -> Resident:
    """Normalize a split and put it on a device, part by part, so that it is not in memory several times."""
    x_NC = torch.empty(split.x.shape, dtype=torch.float32, device=device)
    for start in range(0, len(split.x), _PART):
        x_NC[start : start + _PART] = torch.from_numpy(task.normalize(split.x[start : start + _PART]))
    return Resident(x_NC, torch.from_numpy(split.y).to(device))


def steps_per_epoch(count: int, batch_size: int, *, processes: int = 1) -> int:
    """Steps in which an epoch sees `count` examples: as few as `batch_size` allows.

    No process ever gets a single example, with which batch normalization has no variance.
    """
    return max(1, min(math.ceil(count / batch_size), count // (2 * processes)))


def epoch_order(
    count: int, *, steps: int, seed: int, epoch: int, device: torch.device | str = "cpu"
) -> list[Tensor]:
    """Indices (B,) of the examples of each step, over all processes, on the device; every example once.

    The remainder of the division is spread over the batches instead of forming a small last one.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    order_N = torch.randperm(count, generator=generator)
    return list(order_N.to(device).tensor_split(steps))  # moved once: a copy waits for all work under way


def share_of(indices_B: Tensor, *, rank: int, processes: int) -> Tensor:
    """The part of a batch that one of several processes works on; equal parts, a remainder sits out."""
    share = len(indices_B) // processes
    return indices_B[rank * share : (rank + 1) * share]


def derive_seed(*parts: int | str) -> int:
    """A seed for one purpose; unrelated for every other purpose, epoch or process."""
    text = "/".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7])
