"""One step of quantization-aware distillation against the same step in floating point, side by side.

    python benchmarks/int8/qad_step.py [--rounds 12] [--out OUT.json]

resnet20 at 32x32x3, batch 128, 100 classes, one thread; the recipe's default objective of fine-tuning:
labels, KD from the student's own fp32 weights, KD from a teacher (resnet56). A step is everything that the
loop does with a batch but the augmentation: the teaching networks forward, the student forward and backward,
the optimizer. The rows take turns, one step each, round by round; a ratio is that to `float` of that round.

    float          the folded network with fake quantization off: what fine-tuning in floating point costs
    float, bn      the student as it was trained, batch norm unfolded, in training mode
    moving         the default scheme while scales follow; `frozen` after they were frozen
    learned        LSQ while scales learn; w4a8: LSQ with 4-bit weights
    bn moving      batch norm trained, while its statistics move; `bn frozen` after that
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.distillation.objective import build_quantized_objective
from edgekd.distillation.step import SELF, TEACHER, Answer
from edgekd.documents.recipe import Distillation, QuantizedTraining
from edgekd.documents.scheme import Scheme
from edgekd.networks.network import build_network
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task
from edgekd.training.learner import Learner
from edgekd.training.optimizer import build_optimizer
from edgekd.training.precision import Precision, cpu_has_bf16
from edgekd.training.setting import setting_of

STUDENT, TEACHING, SHAPE, CLASSES, BATCH = "resnet20", "resnet56", (3, 32, 32), 100, 128
BASE = "float"
_WARM_UP = 2

INT8, LSQ, W4A8 = Scheme(), Scheme(scales="learned"), Scheme(scales="learned", weight_bits=4)


@dataclass
class Row:
    """One way to make a step."""

    learner: Learner
    optimizer: torch.optim.Optimizer
    seconds: list[float]


def network(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network(name, in_channels=SHAPE[0], num_classes=CLASSES, input_shape=SHAPE, args={})


def noise_task() -> Task:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (4 * CLASSES, *SHAPE), dtype=np.uint8)
    y = np.arange(len(x)) % CLASSES
    return make_task("noise", train=(x, y), test=(x, y), layout="NCHW", validation_fraction=0.25, seed=0)


def quantized(student: nn.Module, scheme: Scheme, x: Tensor, *, unfolded: bool = False) -> QuantizedNetwork:
    made = prepare(student, x[:2], scheme)
    calibrate(made, [x])
    made.set_saturation("u8")
    if unfolded:
        made.unfold_batch_norm(student, x[:2])
    return made


def learners(student: nn.Module, x: Tensor) -> dict[str, nn.Module]:
    """The networks of all rows, each in the state in which it makes its steps."""
    rows: dict[str, nn.Module] = {BASE: quantized(student, INT8, x), "float, bn": copy.deepcopy(student)}
    schemes = {
        "moving": INT8,
        "frozen": INT8,
        "learned": LSQ,
        "w4a8": W4A8,
        "bn moving": INT8,
        "bn frozen": INT8,
    }
    for name, scheme in schemes.items():
        made = quantized(student, scheme, x, unfolded=name.startswith("bn"))
        made.set_fake_quantizing(True)
        made.set_observing(name not in ("frozen", "bn frozen"))
        made.set_normalizing(name == "bn moving")
        rows[name] = made
    return {name: made.train() for name, made in rows.items()}


def measure(precision: Precision, rounds: int) -> dict[str, list[float]]:
    """Seconds of each row's steps."""
    task = noise_task()
    x = torch.from_numpy(task.normalize(task.train.x[:BATCH]))
    labels_B, indices_B = torch.from_numpy(task.train.y[:BATCH]), torch.arange(BATCH)
    student, teacher = network(STUDENT).eval(), network(TEACHING).eval()
    section, x = QuantizedTraining(), precision.lay_out(x)
    sources = {SELF: student, TEACHER: teacher}
    rows = {}
    for name, made in learners(student, x).items():
        objective = build_quantized_objective(section, Distillation(), setting_of(made, sources, task))
        learner = Learner(made, objective, precision)
        precision.lay_out_network(learner)
        rows[name] = Row(learner, build_optimizer(learner, section), [])
    for source in sources.values():
        precision.lay_out_network(source)
    for _ in range(_WARM_UP + rounds):
        for row in rows.values():
            began = time.perf_counter()
            with torch.no_grad(), precision.autocast(x.device):
                answers = {name: Answer(source(x)) for name, source in sources.items()}
            total, _ = row.learner(x, labels_B, indices_B, answers, epoch=1, epochs=1)
            row.optimizer.zero_grad()
            total.backward()
            row.optimizer.step()
            row.seconds.append(time.perf_counter() - began)
    return {name: row.seconds[_WARM_UP:] for name, row in rows.items()}


def summary(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """Median step and median ratio to the base, with quartiles over the rounds."""
    found = {}
    for name, steps in seconds.items():
        ratios = [step / base for step, base in zip(steps, seconds[BASE], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        found[name] = {
            "step_ms": round(1e3 * statistics.median(steps), 1),
            "ratio": round(middle, 3),
            "ratio_quartiles": [round(low, 3), round(high, 3)],
            "ratio_of_fastest": round(min(steps) / min(seconds[BASE]), 3),
            "n": len(steps),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    dtypes = ("fp32", "bf16") if cpu_has_bf16() else ("fp32",)
    report: dict[str, Any] = {
        "what": f"{STUDENT} from {TEACHING} at {SHAPE}, batch {BATCH}: labels, itself, the teacher; 1 thread",
        "precisions": {
            dtype: summary(measure(Precision(dtype, channels_last=True), arguments.rounds))
            for dtype in dtypes
        },
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, native bf16: {cpu_has_bf16()}",
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }
    arguments.out.write_text(json.dumps(report, indent=2) + "\n")
    for dtype, rows in report["precisions"].items():
        for name, row in rows.items():
            low, high = row["ratio_quartiles"]
            ratio = f"{row['ratio']:.2f} ({low:.2f} to {high:.2f}), fastest {row['ratio_of_fastest']:.2f}"
            print(f"{dtype}  {name:10}  {row['step_ms']:7.1f} ms  ratio {ratio}")


if __name__ == "__main__":
    main()
