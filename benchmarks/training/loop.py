"""Images per second of the training loop, beside a plain loop, in one run.

    python benchmarks/training/loop.py [--repeats 3] [--images 512] [--out benchmarks/training/loop.json]

KD of wrn-16-2 from wrn-40-2 at 32x32x3, batch 128, on noise: throughput does not depend on what is learned.
The plain loop is what a first script does: fp32, channels first, DataLoader, the teacher asked in every step.
edgekd's rows include validation and a checkpoint each epoch; where the view is fixed, the one pass of the
teacher over the data is counted too, spread over EPOCHS epochs. The rows take turns within a repeat; a figure
is the median over the repeats, and so is the ratio of the rows within each repeat.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from edgekd.documents.recipe import Augmentation, Distillation, Training
from edgekd.networks.network import build_network
from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task
from edgekd.training.precision import cpu_has_bf16
from edgekd.training.trainer import train_network

EPOCHS = 30
BATCH = 128
CLASSES = 10
SHAPE = (3, 32, 32)


def noise_task(images: int, augmentation: Augmentation) -> Task:
    rng = np.random.default_rng(0)
    count = images + images // 9  # a tenth of them becomes the validation split
    x = rng.integers(0, 256, (count + 40, *SHAPE), dtype=np.uint8)
    y = np.arange(count + 40) % CLASSES
    return make_task(
        "noise",
        train=(x[:count], y[:count]),
        test=(x[count:], y[count:]),
        layout="NCHW",
        validation_fraction=0.1,
        seed=0,
        augmentation=augmentation,
    )


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, in_channels=SHAPE[0], num_classes=CLASSES, input_shape=SHAPE)


def plain_loop(task: Task) -> float:
    """Images per second of one epoch of the loop that a first script has."""
    teacher, student = network("wrn-40-2").eval(), network("wrn-16-2").train()
    optimizer = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4, nesterov=True)
    data = TensorDataset(torch.from_numpy(task.normalize(task.train.x)), torch.from_numpy(task.train.y))
    began = time.perf_counter()
    for x, y in DataLoader(data, batch_size=BATCH, shuffle=True):
        with torch.no_grad():
            soft = F.softmax(teacher(x) / 4, dim=1)
        logits = student(x)
        kd = F.kl_div(F.log_softmax(logits / 4, dim=1), soft, reduction="batchmean") * 16
        loss = 0.1 * F.cross_entropy(logits, y) + 0.9 * kd
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # a first script prints it
    return len(data) / (time.perf_counter() - began)


def edgekd_loop(task: Task) -> float:
    """Images per second of EPOCHS epochs, from the preparation and two epochs."""
    teacher, student = network("wrn-40-2"), network("wrn-16-2")
    training = Training(epochs=2, batch_size=BATCH, learning_rate=0.01)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = train_network(
            student, task, training, Distillation(), teacher=teacher, checkpoint_dir=Path(folder), seed=0
        )
        seconds = time.perf_counter() - began
    epoch_s = statistics.median(record.seconds for record in result.history)
    preparation_s = seconds - sum(record.seconds for record in result.history)
    return EPOCHS * len(task.train.y) / (preparation_s + EPOCHS * epoch_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    fixed = noise_task(arguments.images, Augmentation())
    random = noise_task(arguments.images, Augmentation(crop=4, flip=True))
    rows: dict[str, Callable[[], float]] = {
        "plain loop": lambda: plain_loop(fixed),
        "edgekd, fixed view": lambda: edgekd_loop(fixed),
        "edgekd, crop and flip": lambda: edgekd_loop(random),
    }
    rates: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(arguments.repeats):
        for name, row in rows.items():
            rates[name].append(row())
    report = {
        "what": "KD wrn-40-2 -> wrn-16-2, 32x32x3, batch 128, images/s",
        "rows": {name: summary(values, rates["plain loop"]) for name, values in rates.items()},
        "images": len(fixed.train.y),
        "threads": torch.get_num_threads(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, native bf16: {cpu_has_bf16()}",
        "versions": {name: version(name) for name in ("torch", "lightning-fabric", "numpy")},
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for name, row in report["rows"].items():  # type: ignore[attr-defined]
        print(f"{name:24} {row['images_per_s']:8.0f} images/s   {row['ratio']:.2f}x   n={row['n']}")


def summary(values: list[float], reference: list[float]) -> dict[str, float | int | list[float]]:
    ratios = [value / other for value, other in zip(values, reference, strict=True)]
    return {
        "images_per_s": round(statistics.median(values), 1),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "n": len(values),
    }


if __name__ == "__main__":
    main()
