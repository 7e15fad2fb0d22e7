"""The options of quantization-aware training beside each other: what the defaults were chosen by.

    python benchmarks/quantization/options.py [--quick] [--seeds 3] [--only 'NAME;NAME'] [--out options.json]

resnet8 on 6,000 images of Fashion-MNIST (benchmarks/fashion_mnist_6000): for each seed a student from the
labels (6 epochs), then every row from that student: 4 epochs of fine-tuning, from the labels and the fp32
student. The epoch is chosen on 600 validation images. Top-1 is that of the network with rounding as ONNX
Runtime has it (u8), on the 10,000 test images, and beside it as TensorRT has it (s8). A difference is to the
row named beside it, seed by seed, with its 95 % interval over seeds and test examples. Writes OUT.json after
every seed, and OUT.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Augmentation, Distillation, QuantizedTraining, Training
from edgekd.documents.scheme import Scheme
from edgekd.networks.network import build_network
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.quantization.scheme import CODE_MAX, largest_per_output, weight_code_max
from edgekd.stats import paired_difference
from edgekd.tasks.task import Task
from edgekd.training.evaluate import predict_logits
from edgekd.training.qad import train_quantized
from edgekd.training.trainer import train_network

HERE = Path(__file__).resolve()
sys.path.insert(0, str(HERE.parents[1] / "fashion_mnist_6000"))
import fashion_mnist_6000  # noqa: E402

EPOCHS, FP32_EPOCHS, BATCH, CALIBRATION = 4, 6, 64, 512
INT8, LSQ = Scheme(), Scheme(scales="learned")
W4, W4_LSQ = Scheme(weight_bits=4), Scheme(weight_bits=4, scales="learned")

Start = Callable[[QuantizedNetwork, Tensor], None]


def from_largest(quantized: QuantizedNetwork, x: Tensor) -> None:
    """Weight scales from the largest magnitudes, whatever the bits."""
    for _, module in quantized.weight_quantizers():
        if module.scale_O is not None:
            start_O = largest_per_output(module.op.weight) / weight_code_max(module.bits)
            module.scale_O.data.copy_(start_O.clamp(min=1e-12))
        elif module.fraction_O is not None:
            module.fraction_O.fill_(1.0)


def as_in_lsq(quantized: QuantizedNetwork, x: Tensor) -> None:
    """Learned scales start at 2 mean|v| / sqrt(m), as the paper has it."""
    for _, module in quantized.weight_quantizers():
        mean_O = module.op.weight.detach().abs().flatten(1).mean(1)
        module.scale_O.data.copy_(2 * mean_O / weight_code_max(module.bits) ** 0.5)
    means: dict[nn.Module, float] = {}

    def note(module: nn.Module, args: tuple[Any, ...]) -> None:
        means.setdefault(module, float(args[0].abs().mean()))

    hooks = [quantizer.register_forward_pre_hook(note) for quantizer in quantized.quantizers()]
    with torch.no_grad():
        quantized(x)
    for quantizer, hook in zip(quantized.quantizers(), hooks, strict=True):
        quantizer.amax.data.fill_(2 * means[quantizer] * CODE_MAX**0.5)
        hook.remove()


@dataclass(frozen=True)
class Row:
    """One student: how it is quantized, and how it is fine-tuned."""

    scheme: Scheme
    beside: str
    """The row that it is compared with."""
    training: dict[str, Any] | None = field(default_factory=dict)
    """What differs from the usual fine-tuning; None for calibration alone."""
    start: Start | None = None
    saturation: str = "u8"
    """The rounding that it is trained under."""
    rounding: bool = True


FAST, BN = {"learning_rate": 1e-2}, {"batch_norm": "trained"}
ROWS: dict[str, Row] = {
    "float": Row(INT8, "float", rounding=False),
    "int8 PTQ": Row(INT8, "float", None),
    "int8": Row(INT8, "int8 PTQ"),
    "int8, scales frozen at once": Row(INT8, "int8", {"freeze_scales_after": 0.0}),
    "int8, scales never frozen": Row(INT8, "int8", {"freeze_scales_after": 1.0}),
    "int8, learned": Row(LSQ, "int8"),
    "int8, learned, started as in LSQ": Row(LSQ, "int8, learned", start=as_in_lsq),
    "int8, learned under s8": Row(LSQ, "int8, learned", saturation="s8"),
    "int8, batch norm": Row(INT8, "int8", BN),
    "int8, batch norm never frozen": Row(INT8, "int8, batch norm", {**BN, "freeze_batch_norm_after": 1.0}),
    "int8, batch norm frozen at once": Row(INT8, "int8, batch norm", {**BN, "freeze_batch_norm_after": 0.0}),
    "w4a8 PTQ": Row(W4, "float", None),
    "w4a8 PTQ, largest": Row(W4, "w4a8 PTQ", None, start=from_largest),
    "w4a8": Row(W4, "w4a8 PTQ"),
    "w4a8, learned": Row(W4_LSQ, "w4a8"),
    "w4a8, learned, started as in LSQ": Row(W4_LSQ, "w4a8, learned", start=as_in_lsq),
    "w4a8, learned, started at the largest": Row(W4_LSQ, "w4a8, learned", start=from_largest),
    "w4a8, learned, never frozen": Row(W4_LSQ, "w4a8, learned", {"freeze_scales_after": 1.0}),
    "w4a8, learned, batch norm": Row(W4_LSQ, "w4a8, learned", BN),
    "w4a8, learned, fast": Row(W4_LSQ, "w4a8, learned", FAST),
    "w4a8, learned, fast, batch norm": Row(W4_LSQ, "w4a8, learned", {**FAST, **BN}),
    "w4a8, fast, batch norm": Row(W4, "w4a8, learned, fast, batch norm", {**FAST, **BN}),
    "w4a8, learned, fast, batch norm to the middle": Row(
        W4_LSQ, "w4a8, learned, fast, batch norm", {**FAST, **BN, "freeze_batch_norm_after": 0.5}
    ),
}


def task_of(seed: int, data: Path) -> Task:
    settings = {"validation_fraction": 0.1, "seed": seed, "augmentation": Augmentation(crop=2, flip=True)}
    return fashion_mnist_6000.task(str(data), **settings)


def student_of(task: Task, seed: int, folder: Path, epochs: int) -> nn.Module:
    torch.manual_seed(seed)
    student = build_network("resnet8", in_channels=1, num_classes=10, input_shape=task.input_shape, args={})
    training = Training(epochs=epochs, batch_size=BATCH, learning_rate=0.1)
    train_network(student, task, training, None, teacher=None, checkpoint_dir=folder, seed=seed)
    return student.eval()


def quantized_by(
    row: Row, student: nn.Module, task: Task, *, seed: int, epochs: int, folder: Path
) -> nn.Module:
    order = torch.randperm(len(task.train.x), generator=torch.Generator().manual_seed(seed))
    x = torch.from_numpy(task.normalize(task.train.x[order[:CALIBRATION].numpy()]))
    quantized = prepare(student, x[:2], row.scheme)
    calibrate(quantized, x.split(128))
    if row.start is not None:
        row.start(quantized, x[:128])
    quantized.set_saturation(row.saturation)
    quantized.set_fake_quantizing(row.rounding)
    if row.training is None:
        return quantized.eval()
    section = QuantizedTraining(epochs=epochs, batch_size=BATCH, teacher_weight=0.0, **row.training)
    train_quantized(
        quantized,
        task,
        section,
        Distillation(),
        student=student,
        teacher=None,
        checkpoint_dir=folder,
        seed=seed,
        rounding=row.rounding,
    )
    return quantized


def right_answers(network: nn.Module, task: Task, count: int) -> np.ndarray:
    """Which test examples (N,) it answers right."""
    x = torch.from_numpy(task.normalize(task.test.x[:count]))
    return predict_logits(network, x).argmax(1).numpy() == task.test.y[:count]


def judged(network: nn.Module, task: Task, count: int) -> dict[str, np.ndarray]:
    """Right answers under each saturation."""
    found = {}
    for saturation in ("u8", "s8"):
        if isinstance(network, QuantizedNetwork):
            network.set_saturation(saturation)
        found[saturation] = right_answers(network, task, count)
    return found


Answers = dict[str, list[dict[str, np.ndarray]]]


def summary(answers: Answers, seconds: dict[str, list[float]]) -> dict[str, Any]:
    found = {}
    for name, seeds in answers.items():
        table_SN = np.stack([one["u8"] for one in seeds])
        found[name] = {
            "top1": [round(float(row.mean()), 4) for row in table_SN],
            "mean": round(float(table_SN.mean()), 4),
            "mean_s8": round(float(np.mean([one["s8"].mean() for one in seeds])), 4),
            "seconds": round(float(np.mean(seconds[name])), 1),
        }
        beside = ROWS[name].beside if name in ROWS else name
        if beside != name and beside in answers:
            other_SN = np.stack([one["u8"] for one in answers[beside]])
            found[name] |= {"beside": beside, **_difference(other_SN, table_SN)}
    return found


def _difference(reference_SN: np.ndarray, candidate_SN: np.ndarray) -> dict[str, float]:
    found = paired_difference(reference_SN, candidate_SN, 0.975)
    values = {"difference_pt": found.mean, "lower_pt": found.lower, "upper_pt": found.upper}
    return {name: round(100 * value, 2) for name, value in values.items()}


def table(report: dict[str, Any]) -> str:
    lines = [
        f"# Options of quantization-aware training: {report['what']}",
        "",
        f"Seeds {report['seeds']}, n = {report['examples']}; {report['machine']}.",
        "",
        "| row | top-1, u8 | each seed | top-1, s8 | beside | difference, 95 % | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, row in report["rows"].items():
        seeds = " ".join(f"{100 * value:.2f}" for value in row["top1"])
        difference = "|"
        if "beside" in row:
            bounds = f"{row['lower_pt']:+.2f} to {row['upper_pt']:+.2f}"
            difference = f"{row['beside']} | {row['difference_pt']:+.2f} pt ({bounds})"
        lines.append(
            f"| {name} | {100 * row['mean']:.2f} % | {seeds} | {100 * row['mean_s8']:.2f} % | {difference} | "
            f"{row['seconds']} |"
        )
    return "\n".join(lines) + "\n"


def compare(names: Sequence[str], seeds: int, *, quick: bool, data: Path, out: Path) -> None:
    """Make and judge every row for every seed; report after each seed."""
    epochs, fp32_epochs, count = (1, 1, 1000) if quick else (EPOCHS, FP32_EPOCHS, 10_000)
    answers: Answers = {name: [] for name in ("fp32", *names)}
    seconds: dict[str, list[float]] = {name: [] for name in answers}
    for seed in range(seeds):
        task = task_of(seed, data)
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            student = student_of(task, seed, Path(folder), fp32_epochs)
            _note("fp32", student, task, count, answers, seconds, began)
        for name in names:
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                made = quantized_by(ROWS[name], student, task, seed=seed, epochs=epochs, folder=Path(folder))
                _note(name, made, task, count, answers, seconds, began)
        report = {
            "what": f"resnet8, 6,000 images of Fashion-MNIST, {epochs} epochs of fine-tuning",
            "seeds": seed + 1,
            "examples": count,
            "rows": summary(answers, seconds),
            "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, {torch.get_num_threads()} threads, "
            f"torch {version('torch')}",
        }
        out.write_text(json.dumps(report, indent=2) + "\n")
        out.with_suffix(".md").write_text(table(report))


def _note(
    name: str,
    network: nn.Module,
    task: Task,
    count: int,
    answers: Answers,
    seconds: dict[str, list[float]],
    began: float,
) -> None:
    seconds[name].append(time.perf_counter() - began)
    answers[name].append(judged(network, task, count))
    top1 = answers[name][-1]["u8"].mean()
    print(f"{name:50} {100 * top1:6.2f} %  {seconds[name][-1]:5.1f} s", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="one seed, one epoch: to see that it runs")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="", help="rows, separated by semicolons; all when not given")
    parser.add_argument("--data", type=Path, default=fashion_mnist_6000.DATA)
    parser.add_argument("--out", type=Path, default=HERE.with_suffix(".json"))
    arguments = parser.parse_args()
    names = [name.strip() for name in arguments.only.split(";") if name.strip()] or list(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown:
        parser.error(f"no such row: {', '.join(unknown)}; there are: {'; '.join(ROWS)}")
    seeds = 1 if arguments.quick else arguments.seeds
    compare(names, seeds, quick=arguments.quick, data=arguments.data, out=arguments.out)
    print(arguments.out.with_suffix(".md").read_text())


if __name__ == "__main__":
    main()
