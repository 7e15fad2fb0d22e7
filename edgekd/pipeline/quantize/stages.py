"""The stages that quantize a student: calibration, one stage a calibrator, and fine-tuning, one an arm.

Like learn.py this needs torch; the commands import it late.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import nn

from edgekd.conversion.specs import load_spec
from edgekd.documents.quantization import Calibrator, QuantizedArm
from edgekd.documents.scheme import Scheme
from edgekd.documents.spec import Saturation
from edgekd.files import write_bytes, write_text
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.learn import lesson_of
from edgekd.pipeline.networks import (
    WEIGHTS,
    example_input,
    keep_result,
    load_student,
    network_ingredients,
    objective_ingredients,
    training_ingredients,
)
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.quantize.examples import calibration_set
from edgekd.pipeline.quantize.names import drop_pt, row_of, training_of
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import VALIDATION
from edgekd.pipeline.teachers import TeacherStages, load_teacher
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.tasks.task import Task
from edgekd.training.data import load_split
from edgekd.training.evaluate import judge, predict_logits
from edgekd.training.qad import train_quantized

_SOURCE = (
    *("quantization", "networks", "tasks", "pipeline/networks.py"),
    *("pipeline/quantize/stages.py", "pipeline/quantize/examples.py"),
)
_BATCH = 128


@dataclass(frozen=True)
class Quantized:
    """A quantized student as a stage left it."""

    arm: QuantizedArm
    scheme: Scheme
    stage: Stage

    @property
    def row(self) -> str:
        """Its row in reports."""
        return row_of(self.arm, self.scheme)

    @property
    def top1(self) -> float:
        """Its share of right answers on validation."""
        value: float = self.stage.json(VALIDATION)["top1"]
        return value

    @property
    def drop_pt(self) -> float:
        """Percentage points below the fp32 student on validation."""
        return drop_pt(self.stage.json(VALIDATION))


def calibrated(
    context: Context, task: Task, student: Stage, scheme: Scheme, calibrator: Calibrator, *, name: str
) -> Quantized:
    """The student calibrated in one way."""
    given = calibration_set(context, task)
    ingredients = {
        "student": student.file.files[WEIGHTS],
        "network": network_ingredients(context.recipe.student),
        "scheme": section(scheme),
        "calibrator": calibrator,
        **given.ingredients,
        "saturation": saturation_of(context),
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch"),
    }

    def work(folder: Path) -> None:
        quantized = new_quantized(context, task, student, scheme)
        flags = [*given.check(), *calibrate(quantized, torch.split(given.take(), _BATCH), calibrator)]
        _keep(context, task, student, quantized, folder)
        keep_result({"calibrator": calibrator, "flags": flags}, folder)

    stage = context.make(name, f"calibrate on {given.count} examples ({calibrator})", ingredients, work)
    return Quantized("ptq", scheme, stage)


def best_calibrated(
    context: Context, task: Task, student: Stage, scheme: Scheme, *, prefix: str = "ptq"
) -> Quantized:
    """The student with the recipe's calibrator that validates best: the PTQ baseline, where QAD starts."""
    found = [
        calibrated(context, task, student, scheme, calibrator, name=f"{prefix}-{calibrator}")
        for calibrator in context.recipe.quantization.calibrators
    ]
    return max(found, key=_merit)


def fine_tuned(
    context: Context,
    task: Task,
    teacher: TeacherStages | None,
    student: Stage,
    start: Quantized,
    arm: QuantizedArm,
    *,
    name: str,
) -> Quantized:
    """The calibrated student fine-tuned with quantization in the loop, as an arm does it."""
    ingredients, train = _fine_tuning(context, task, teacher, student, start, arm, name, rounding=True)

    def work(folder: Path) -> None:
        _keep(context, task, student, train(folder), folder)

    stage = context.make(name, "fine-tune with quantization in the loop", ingredients, work)
    return Quantized(arm, start.scheme, stage)


def _fine_tuning(
    context: Context,
    task: Task,
    teacher: TeacherStages | None,
    student: Stage,
    start: Quantized,
    arm: QuantizedArm,
    name: str,
    *,
    rounding: bool,
) -> tuple[dict[str, Any], Callable[[Path], QuantizedNetwork]]:
    """All that a fine-tuning is made of, and what does it in the folder of its stage."""
    training = training_of(arm, context.recipe)
    distillation = context.recipe.distillation
    lesson = lesson_of(context, task, distillation)
    ingredients = {
        "start": start.stage.file.files[WEIGHTS],
        "scheme": section(start.scheme),
        "student": [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)],
        "teacher": None if teacher is None else teacher.ingredients,
        "saturation": saturation_of(context),
        **objective_ingredients(distillation),
        **training_ingredients(context, lesson, training, "pipeline/learn.py", "pipeline/quantize/stages.py"),
        "quantization": source_digest("quantization"),
    }

    def train(folder: Path) -> QuantizedNetwork:
        quantized = load_quantized(context, task, student, start)
        quantized.set_saturation(saturation_of(context))
        result = train_quantized(
            quantized,
            lesson,
            training,
            distillation,
            student=load_student(context, task, student),
            teacher=None if teacher is None else load_teacher(context, lesson, teacher),
            checkpoint_dir=folder / "checkpoints",
            seed=context.recipe.seed,
            progress=context.listener.training(name),
            devices=training.devices,
            rounding=rounding,
        )
        keep_result(result.summary(), folder)
        return quantized

    return ingredients, train


def tuned_in_float(
    context: Context,
    task: Task,
    teacher: TeacherStages | None,
    student: Stage,
    start: Quantized,
    *,
    name: str,
) -> tuple[Stage, nn.Module]:
    """The student fine-tuned as `qad` does it, but in floating point, and its network: a control.

    What fine-tuning alone gives is not to be counted for quantization-aware distillation.
    """
    ingredients, train = _fine_tuning(context, task, teacher, student, start, "qad", name, rounding=False)

    def work(folder: Path) -> None:
        _keep(context, task, student, train(folder), folder, rounding=False)

    stage = context.make(name, "fine-tune in floating point", ingredients, work)
    return stage, load_quantized(context, task, student, Quantized("qad", start.scheme, stage)).graph


def new_quantized(context: Context, task: Task, student: Stage, scheme: Scheme) -> QuantizedNetwork:
    """The fp32 student with quantizers inserted, not yet calibrated."""
    return prepare(load_student(context, task, student), example_input(task), scheme)


def load_quantized(context: Context, task: Task, student: Stage, kept: Quantized) -> QuantizedNetwork:
    """A quantized student as its stage left it."""
    quantized = new_quantized(context, task, student, kept.scheme)
    quantized.load_state_dict(load_file(kept.stage.path(WEIGHTS)))
    return quantized


def saturation_of(context: Context) -> Saturation:
    """The saturation under which students are chosen: that of the first target's graphs."""
    return load_spec(context.recipe.targets[0].runtime).codes


def _merit(one: Quantized) -> tuple[float, float]:
    """Higher validation top-1; among equals the smaller divergence from the fp32 student."""
    found = one.stage.json(VALIDATION)
    return found["top1"], -found["kl"]


def _keep(
    context: Context,
    task: Task,
    student: Stage,
    quantized: QuantizedNetwork,
    folder: Path,
    *,
    rounding: bool = True,
) -> None:
    """Write the state, the scales, and what the student is worth on validation."""
    state = {name: value.detach().cpu().contiguous() for name, value in quantized.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(state))  # save_file hides a full disk behind an error of its own
    write_text(folder / "scales.json", json.dumps(quantized.scales(), indent=2) + "\n")
    quantized.set_saturation(saturation_of(context))
    quantized.set_observing(False)
    quantized.set_fake_quantizing(rounding)
    worth = worth_of(task, load_student(context, task, student), quantized)
    write_text(folder / VALIDATION, json.dumps(worth, indent=2) + "\n")


def worth_of(task: Task, fp32: nn.Module, small: nn.Module) -> dict[str, Any]:
    """What a small student is worth on validation, beside the fp32 student."""
    validation = load_split(task, task.validation, torch.device("cpu"))
    expected = predict_logits(fp32, validation.x_NC)
    found = judge(predict_logits(small, validation.x_NC), validation, expected)
    return {
        "top1": found.top1,
        "kl": found.kl,
        "fp32_top1": judge(expected, validation).top1,
        "count": len(validation),
    }
