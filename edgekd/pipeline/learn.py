"""The stages that learn: teacher, student, calibration (PTQ), quantization-aware distillation (QAD).

This file and export.py are the only ones of the pipeline that need torch; the commands import them late.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn

from edgekd.documents.function import PREFIX as PYTHON
from edgekd.documents.function import source_files
from edgekd.documents.recipe import Distillation, QuantizedTraining, Student, Teacher, Training
from edgekd.errors import NetworkError
from edgekd.files import sha256_file, write_bytes, write_text
from edgekd.networks.network import build_network
from edgekd.networks.timm_network import PREFIX as TIMM
from edgekd.networks.weights import load_weights, save_weights
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.heads import load_heads
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.quantization.calibrate import calibrate
from edgekd.quantization.canonical import replace_relu6
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.prepare import prepare
from edgekd.tasks.task import Task, build_task
from edgekd.training.precision import resolve_precision
from edgekd.training.qad import train_quantized
from edgekd.training.result import TrainingResult
from edgekd.training.trainer import train_network

WEIGHTS, RESULT = "weights.safetensors", "result.json"
_TRAINING_SOURCE = ("networks", "tasks", "distillation", "training", "pipeline/learn.py")


def task_of(context: Context) -> Task:
    """The recipe's task."""
    return build_task(context.recipe.task, base_dir=context.base_dir, seed=context.recipe.seed)


def try_out(context: Context, task: Task) -> None:
    """Build both networks, load their given weights, and trace the student; nothing is kept.

    Raises:
        NetworkError: whatever would stop the run after its teacher was trained.
    """
    for role in (context.recipe.teacher, context.recipe.student):
        network = new_network(context, role, task)
        if role.weights is not None:
            load_weights(network, _weights_path(context, role.weights))
    prepare(network.eval(), example_input(task))


def teacher(context: Context, task: Task) -> Stage:
    """The teacher: loaded when the recipe names weights, else trained."""
    role = context.recipe.teacher
    given = None if role.weights is None else _weights_path(context, role.weights)
    ingredients = {
        "network": network_ingredients(role),
        "given": None if given is None else _digest_of_weights(given),
        **({} if given else _training_ingredients(context, task, role.training)),
    }

    def work(folder: Path) -> None:
        network = new_network(context, role, task)
        if given is not None:
            load_weights(network, given)
            save_weights(network, folder / WEIGHTS)
            return
        result = train_network(
            network,
            task,
            role.training,
            None,
            teacher=None,
            checkpoint_dir=folder / "checkpoints",
            seed=context.recipe.seed,
            progress=context.listener.training("teacher"),
            devices=role.training.devices,
        )
        _keep(network, result, folder)

    what = f"load the teacher {role.network}" if given else f"train the teacher {role.network}"
    return context.make("teacher", what, ingredients, work)


def student(
    context: Context,
    task: Task,
    teacher: Stage,
    heads: Sequence[Stage] = (),
    *,
    name: str = "student",
    distillation: Distillation | None = None,
    seed: int | None = None,
) -> Stage:
    """The student in floating point, distilled from the teacher.

    Args:
        context: what every stage is given.
        task: what is learned.
        teacher: the finished teacher.
        heads: the stages of the heads on the frozen teacher that the terms need.
        name: of the stage.
        distillation: the objective, where it is not the recipe's.
        seed: of the initial weights, the order and the augmentation, where it is not the recipe's.
    """
    role = context.recipe.student
    distillation = distillation or context.recipe.distillation
    seed = context.recipe.seed if seed is None else seed
    given = None if role.weights is None else _weights_path(context, role.weights)
    ingredients = {
        "network": network_ingredients(role),
        "given": None if given is None else _digest_of_weights(given),
        "teacher": _teacher_ingredients(context, teacher),
        "heads": [stage.file.files for stage in heads],
        "distillation": section(distillation),
        **_training_ingredients(context, task, role.training),
        "seed": seed,
        "quantization": source_digest("quantization"),
    }

    def work(folder: Path) -> None:
        network = new_network(context, role, task, seed=seed)
        if given is not None:
            load_weights(network, given)
        result = train_network(
            network,
            task,
            role.training,
            distillation,
            teacher=load_teacher(context, task, teacher),
            checkpoint_dir=folder / "checkpoints",
            seed=seed,
            progress=context.listener.training(name),
            devices=role.training.devices,
            heads=load_heads(heads),
        )
        _keep(network, result, folder)

    return context.make(name, f"distill the student {role.network}", ingredients, work)


def post_training(context: Context, task: Task, student: Stage) -> Stage:
    """The calibrated student: the PTQ baseline, and where QAD starts."""
    count = min(context.recipe.quantization.calibration_examples, len(task.train.x))
    ingredients = {
        "student": student.file.files[WEIGHTS],
        "network": network_ingredients(context.recipe.student),
        "examples": count,
        "seed": context.recipe.seed,
        "task": task.fingerprint,
        "source": source_digest("quantization", "networks", "tasks", "pipeline/learn.py"),
        "versions": package_versions("torch"),
    }

    def work(folder: Path) -> None:
        quantized = new_quantized(context, task, student)
        order = torch.randperm(
            len(task.train.x), generator=torch.Generator().manual_seed(context.recipe.seed)
        )
        examples = torch.from_numpy(task.normalize(task.train.x[order[:count].numpy()]))
        calibrate(quantized, torch.split(examples, 128))
        _keep_quantized(quantized, folder)

    return context.make("ptq", f"calibrate on {count} examples", ingredients, work)


def quantization_aware(context: Context, task: Task, teacher: Stage, student: Stage, ptq: Stage) -> Stage:
    """The student fine-tuned with quantization in the loop."""
    training = context.recipe.quantization.training
    ingredients = {
        "ptq": ptq.file.files[WEIGHTS],
        "student": [student.file.files[WEIGHTS], network_ingredients(context.recipe.student)],
        "teacher": _teacher_ingredients(context, teacher),
        "distillation": section(context.recipe.distillation),
        **_training_ingredients(context, task, training),
        "quantization": source_digest("quantization"),
    }

    def work(folder: Path) -> None:
        quantized = load_quantized(context, task, student, ptq)
        result = train_quantized(
            quantized,
            task,
            training,
            context.recipe.distillation,
            student=load_student(context, task, student),
            teacher=load_teacher(context, task, teacher),
            checkpoint_dir=folder / "checkpoints",
            seed=context.recipe.seed,
            progress=context.listener.training("qad"),
            devices=training.devices,
        )
        _keep_quantized(quantized, folder)
        write_text(folder / RESULT, json.dumps(result.summary(), indent=2) + "\n")

    return context.make("qad", "fine-tune with quantization in the loop", ingredients, work)


def new_network(
    context: Context, role: Teacher | Student, task: Task, *, seed: int | None = None
) -> nn.Module:
    """A network of a role with fresh weights, seeded by the recipe where no seed is given."""
    torch.manual_seed(context.recipe.seed if seed is None else seed)
    network = build_network(
        role.network,
        in_channels=task.in_channels,
        num_classes=task.num_classes,
        input_shape=task.input_shape,
        args=role.args,
    )
    return replace_relu6(network) if isinstance(role, Student) else network


def load_teacher(context: Context, task: Task, stage: Stage) -> nn.Module:
    """The finished teacher."""
    network = new_network(context, context.recipe.teacher, task)
    load_weights(network, stage.path(WEIGHTS))
    return network.eval()


def load_student(context: Context, task: Task, stage: Stage) -> nn.Module:
    """The finished fp32 student."""
    network = new_network(context, context.recipe.student, task)
    load_weights(network, stage.path(WEIGHTS))
    return network.eval()


def new_quantized(context: Context, task: Task, student: Stage) -> QuantizedNetwork:
    """The fp32 student with quantizers inserted, not yet calibrated."""
    return prepare(load_student(context, task, student), example_input(task))


def load_quantized(context: Context, task: Task, student: Stage, stage: Stage) -> QuantizedNetwork:
    """A quantized student as a stage left it."""
    quantized = new_quantized(context, task, student)
    quantized.load_state_dict(load_file(stage.path(WEIGHTS)))
    return quantized


def example_input(task: Task) -> Tensor:
    """Two normalized training examples."""
    return torch.from_numpy(task.normalize(task.train.x[:2]))


def network_ingredients(role: Teacher | Student) -> dict[str, Any]:
    """All that a network is made of but its weights, the source of a user's own function included."""
    data = dict(section(role, without=("weights", "training")))
    if role.network.startswith(PYTHON):
        files = source_files(role.network, raises=NetworkError)
        data["source"] = [sha256_file(path) for path in files]
    elif role.network.startswith(TIMM):
        data["versions"] = package_versions("timm")
    return data


def _teacher_ingredients(context: Context, teacher: Stage) -> list[Any]:
    """The same weights answer otherwise in another network."""
    return [teacher.file.files[WEIGHTS], network_ingredients(context.recipe.teacher)]


def _training_ingredients(
    context: Context, task: Task, training: Training | QuantizedTraining
) -> dict[str, Any]:
    precision = resolve_precision(training.precision, task.input_shape)
    return {
        "task": task.fingerprint,
        "augmentation": section(task.augmentation),
        "training": section(training, without=("precision",)),
        "precision": str(precision),
        "seed": context.recipe.seed,
        "source": source_digest(*_TRAINING_SOURCE),
        "versions": package_versions("torch", "lightning-fabric", "timm"),
    }


def _keep(network: nn.Module, result: TrainingResult, folder: Path) -> None:
    save_weights(network, folder / WEIGHTS)
    write_text(folder / RESULT, json.dumps(result.summary(), indent=2) + "\n")


def _keep_quantized(quantized: QuantizedNetwork, folder: Path) -> None:
    state = {name: value.detach().cpu().contiguous() for name, value in quantized.state_dict().items()}
    write_bytes(folder / WEIGHTS, save(state))  # save_file hides a full disk behind an error of its own
    write_text(folder / "scales.json", json.dumps(quantized.scales(), indent=2) + "\n")


def _weights_path(context: Context, path: Path) -> Path:
    return context.base_dir / path


def _digest_of_weights(path: Path) -> str | None:
    return sha256_file(path) if path.is_file() else None  # load_weights says what is wrong with it
