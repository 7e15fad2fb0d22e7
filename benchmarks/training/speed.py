"""Images per second of every method in edgekd's loop, beside the literature's way, in one run.

    python benchmarks/training/speed.py [--rows kd,sskd] [--repeats 3] [--steps 20] [--out speed.json]

wrn-40-2 -> wrn-16-2 at 32x32x3, 100 classes, batch 64, crop 4 and flip, on as many images of noise as there
are in CIFAR-100: throughput does not depend on what is learned. Each row is measured in a process of its own,
which also gives its peak memory; the rows take turns within a repeat. A ratio is that to the reference
(reference.py) of the same repeat: KD's, or SSKD's for methods that look at four views. Figures are medians
over the repeats, of training steps alone on both sides: no validation, no checkpoint, no start.
A row `NAME+cycle` keeps the teacher's answers by training.view_cycle: CYCLE of EPOCHS epochs cost what the
first pass costs, the others what the second does.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import reference
import torch
from reference import BATCH, CLASSES, SHAPE, STUDENT, TEACHER

from edgekd.distillation.frozen_heads import untrained_heads
from edgekd.distillation.step import TEACHER as TEACHER_SOURCE
from edgekd.documents.methods import METHODS
from edgekd.documents.recipe import Augmentation, Distillation, Training
from edgekd.documents.views import PRETEXT
from edgekd.tasks.make import make_task
from edgekd.tasks.task import Task
from edgekd.training.precision import cpu_has_bf16
from edgekd.training.result import EpochRecord
from edgekd.training.setting import setting_of
from edgekd.training.trainer import objective_for, train_network

IMAGES = 50_000
CYCLE, EPOCHS = 16, 240
_CYCLED = "+cycle"
_REFERENCE = {"reference kd": reference.kd_images_per_s, "reference sskd": reference.sskd_images_per_s}
_WARM_UP = 3
_LEFT_OUT = ("minilm", "guided")
"""For transformers; two other methods one after the other."""

Figures = dict[str, Any]


class _EnoughError(Exception):
    """As many steps as wanted were timed."""


class Clock:
    """A Progress that notes when each step was done, and ends the training after `steps` of them."""

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.times: list[float] = []

    def on_start(self, epochs: int, done: int) -> None:
        """Nothing was done yet."""

    def on_step(self, step: int, steps: int) -> None:
        """Note the time."""
        self.times.append(time.perf_counter())
        if len(self.times) == self.steps:
            raise _EnoughError

    def on_epoch(self, record: EpochRecord) -> None:
        """The time goes on."""

    def on_warning(self, message: str) -> None:
        """There is nobody to warn."""

    def seconds(self, first: int, last: int) -> float:
        """Mean seconds of a step, from the end of step `first` to that of step `last`, counted from 0."""
        return (self.times[last] - self.times[first]) / (last - first)


def noise_task(images: int) -> Task:
    """Noise in CIFAR-100's shapes, of which a fiftieth validates."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (images + CLASSES, *SHAPE), dtype=np.uint8)
    y = np.arange(images + CLASSES) % CLASSES
    return make_task(
        "noise",
        train=(x[:images], y[:images]),
        test=(x[images:], y[images:]),
        layout="NCHW",
        validation_fraction=0.02,
        seed=0,
        augmentation=Augmentation(crop=4, flip=True),
    )


def run(task: Task, objective: Distillation, clock: Clock, *, view_cycle: int = 0) -> int:
    """Train until the clock has enough; gives how many views the objective reads."""
    student = reference.network(STUDENT)
    teacher = reference.network(TEACHER) if objective.needs_teacher else None
    setting = setting_of(student, {TEACHER_SOURCE: teacher}, task)
    heads = untrained_heads(objective, setting)
    training = Training(epochs=EPOCHS, batch_size=BATCH, learning_rate=0.01, view_cycle=view_cycle)
    setting = setting_of(student, {TEACHER_SOURCE: teacher}, task, heads=heads)
    views = objective_for(setting, training, objective, seed=0).views
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(_EnoughError):
        train_network(
            student,
            task,
            training,
            objective,
            teacher=teacher,
            checkpoint_dir=Path(folder),
            seed=0,
            progress=clock,
            heads=heads,
        )
    return len([view for view in views if view in PRETEXT])


def measure(row: str, steps: int, workers: int) -> Figures:
    """The figures of one row, in this process."""
    if row in _REFERENCE:
        figures: Figures = {"images_per_s": _REFERENCE[row](steps, workers=workers), "workers": workers}
    elif row.endswith(_CYCLED):
        figures = _cycled(row.removesuffix(_CYCLED), steps)
    else:
        figures = _plain(row, steps)
    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**figures, "peak_rss_mib": round(peak_kib / 1024)}


def _plain(method: str, steps: int) -> Figures:
    objective, clock = _objective(method), Clock(_WARM_UP + steps)
    surveys = method == "nd"  # runs the teacher over all images first
    task = noise_task(IMAGES // 10 if surveys else IMAGES)
    views = run(task, objective, clock)
    return _figures(clock.seconds(_WARM_UP - 1, _WARM_UP + steps - 1), task, objective, views)


def _cycled(method: str, steps: int) -> Figures:
    """One epoch in which the teacher is asked, and one in which its answers come again."""
    objective, passes = _objective(method), _WARM_UP + steps
    task = noise_task(passes * BATCH * 50 // 49 // CLASSES * CLASSES)
    epoch = -(-len(task.train.y) // BATCH)
    clock = Clock(2 * epoch)
    views = run(task, objective, clock, view_cycle=1)
    asked_s = clock.seconds(_WARM_UP - 1, epoch - 1)
    kept_s = clock.seconds(epoch, 2 * epoch - 1)
    mean_s = (CYCLE * asked_s + (EPOCHS - CYCLE) * kept_s) / EPOCHS
    return _figures(mean_s, task, objective, views)


def _objective(method: str) -> Distillation:
    return METHODS[method].objective_for(TEACHER, STUDENT, EPOCHS)


def _figures(step_s: float, task: Task, objective: Distillation, pretext_views: int) -> Figures:
    images = len(task.train.y)
    batch = images / -(-images // BATCH)
    return {
        "images_per_s": batch / step_s,
        "images": images,
        "teacher": objective.needs_teacher,
        "beside": "reference sskd" if pretext_views else "reference kd",
    }


def main() -> None:
    """Measure every row in turns, and write the report after each repeat."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rows", default="", help="methods, separated by commas; all when not given")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    parser.add_argument("--row", help="measure this row in this process, and print its figures")
    parser.add_argument("--workers", type=int, default=0, help="of the reference's DataLoader")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(measure(arguments.row, arguments.steps, arguments.workers)))
        return
    asked = [name for name in arguments.rows.split(",") if name]
    every = [name for name in METHODS if name not in _LEFT_OUT]
    rows = asked or [*every, *(name + _CYCLED for name in ("kd", "sskd"))]
    compare(rows, arguments.repeats, arguments.steps, arguments.out)
    print(arguments.out.with_suffix(".md").read_text())


def compare(rows: Sequence[str], repeats: int, steps: int, out: Path) -> None:
    """Measure the references and the rows in turns, and write the report and its table after each repeat."""
    found: dict[str, list[Figures]] = {name: [] for name in (*_REFERENCE, *rows)}
    workers = {name: _faster_workers(name, steps) for name in _REFERENCE}
    for _ in range(repeats):
        for name in found:
            found[name].append(_apart(name, steps, workers.get(name, 0)))
            print(name, round(found[name][-1]["images_per_s"], 1), file=sys.stderr)
        report: Figures = {
            "what": f"{TEACHER} -> {STUDENT}, {SHAPE}, batch {BATCH}, crop 4 and flip; images/s of the steps",
            "cycle": f"view_cycle {CYCLE}, mean over {EPOCHS} epochs",
            "rows": {name: _summary(figures, found) for name, figures in found.items()},
            "steps": steps,
            "threads": torch.get_num_threads(),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, native bf16: {cpu_has_bf16()}",
            "versions": {name: version(name) for name in ("torch", "lightning-fabric", "numpy")},
        }
        out.write_text(json.dumps(report, indent=2) + "\n")
        out.with_suffix(".md").write_text(_table(report))


def _table(report: Figures) -> str:
    """The report as Markdown."""
    lines = [
        f"# Speed of training: {report['what']}",
        "",
        f"{report['machine']}; {', '.join(' '.join(pair) for pair in report['versions'].items())}.",
        f"`+cycle`: {report['cycle']}.",
        "",
        "| row | images/s | beside | ratio, median | lowest to highest | n | peak memory, MiB |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in report["rows"].items():
        spread = f"{min(row['ratios']):.2f} to {max(row['ratios']):.2f}"
        lines.append(
            f"| {name} | {row['images_per_s']:.0f} | {row['beside']} | {row['ratio']:.2f} | {spread} | "
            f"{row['n']} | {row['peak_rss_mib']} |"
        )
    return "\n".join(lines) + "\n"


def _faster_workers(row: str, steps: int) -> int:
    """With how many workers the reference is fastest here: the reference gets its best."""
    rates = {count: _apart(row, steps, count)["images_per_s"] for count in (0, 2)}
    return max(rates, key=lambda count: rates[count])


def _apart(row: str, steps: int, workers: int) -> Figures:
    """The figures of a row, measured in a process of its own."""
    command = [sys.executable, __file__, "--row", row, "--steps", str(steps), "--workers", str(workers)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def _summary(figures: list[Figures], found: dict[str, list[Figures]]) -> Figures:
    rates = [one["images_per_s"] for one in figures]
    beside = figures[0].get("beside")
    others = [one["images_per_s"] for one in found[beside]] if beside else rates
    ratios = [rate / other for rate, other in zip(rates, others, strict=True)]
    return {
        **{key: value for key, value in figures[0].items() if key not in ("images_per_s", "beside")},
        "images_per_s": round(statistics.median(rates), 1),
        "beside": beside or "itself",
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "peak_rss_mib": max(one["peak_rss_mib"] for one in figures),
        "n": len(rates),
    }


if __name__ == "__main__":
    main()
