"""A small task and small networks on which the properties of training are checked."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.documents.common import InputSpec
from edgekd.documents.recipe import Augmentation
from edgekd.tasks.task import Split, Task
from edgekd.training.result import EpochRecord

NO_AUGMENTATION = Augmentation()
NOISY = Augmentation(noise=0.1)


def make_task(
    *, augmentation: Augmentation = NO_AUGMENTATION, size: int = 8, train: int = 96, seed: int = 0
) -> Task:
    """Three classes of noisy stripes: bright rows at the top, in the middle, at the bottom."""
    rng = np.random.default_rng(seed)

    def split(count: int) -> Split:
        y_N = rng.integers(0, 3, count)
        x_NCHW = rng.normal(100, 40, (count, 1, size, size))
        for example, label in zip(x_NCHW, y_N, strict=True):
            example[0, label * size // 3 : label * size // 3 + 2] += 80
        return Split(x=np.clip(x_NCHW, 0, 255).astype(np.uint8), y=y_N.astype(np.int64))

    return Task(
        name="stripes",
        classes=("top", "middle", "bottom"),
        input=InputSpec(shape=(1, size, size), layout="NCHW", raw_dtype="uint8", mean=(110.0,), std=(50.0,)),
        train=split(train),
        validation=split(40),
        test=split(40),
        augmentation=augmentation,
        fingerprint=f"{seed:064d}",
    )


class TinyConvNet(nn.Module):
    """Two convolutions with batch norm, dropout, a linear classifier."""

    def __init__(self, *, width: int = 8, num_classes: int = 3, dropout: float = 0.1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(width, num_classes)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x_BCHW = torch.relu(self.bn1(self.conv1(x_BCHW)))
        x_BCHW = torch.relu(self.bn2(self.conv2(x_BCHW)))
        return self.linear(self.dropout(x_BCHW.amax((2, 3))))


def make_network(seed: int = 1, **sizes: float) -> TinyConvNet:
    """A tiny network with seeded weights."""
    torch.manual_seed(seed)
    return TinyConvNet(**sizes)  # type: ignore[arg-type]


class Listener:
    """A Progress that keeps what it hears; with `die_after` it ends the training as Ctrl-C would."""

    def __init__(self, *, die_after: int | None = None) -> None:
        self.starts: list[tuple[int, int]] = []
        self.steps: list[tuple[int, int]] = []
        self.epochs: list[EpochRecord] = []
        self.warnings: list[str] = []
        self.die_after = die_after

    def on_start(self, epochs: int, done: int) -> None:
        self.starts.append((epochs, done))

    def on_step(self, step: int, steps: int) -> None:
        self.steps.append((step, steps))

    def on_epoch(self, record: EpochRecord) -> None:
        self.epochs.append(record)
        if record.epoch == self.die_after:
            raise KeyboardInterrupt

    def on_warning(self, message: str) -> None:
        self.warnings.append(message)


def same_weights(first: nn.Module, second: nn.Module) -> bool:
    """Whether two networks have the same parameters and buffers, bit for bit."""
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)
