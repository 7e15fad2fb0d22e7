"""The networks of a recipe: how each is built, and what its stages are kept under."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distillation.exits import early_exit, trained_exit, untrained_exit
from edgekd.distillation.setting import State
from edgekd.documents.function import PREFIX as PYTHON
from edgekd.documents.function import source_files
from edgekd.documents.recipe import Distillation, QuantizedTraining, Student, Training
from edgekd.documents.teacher import TeachingNetwork
from edgekd.documents.terms.python_term import PythonTerm
from edgekd.errors import EdgekdError, NetworkError, UsageError
from edgekd.files import sha256_file, write_text
from edgekd.networks.network import build_network
from edgekd.networks.timm_network import PREFIX as TIMM
from edgekd.networks.weights import load_weights, save_weights
from edgekd.pipeline.context import Context, section
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import RESULT
from edgekd.quantization.canonical import replace_relu6
from edgekd.tasks.task import Task
from edgekd.training.precision import resolve_precision
from edgekd.training.result import TrainingResult
from edgekd.training.setting import setting_of

WEIGHTS = "weights.safetensors"
_TRAINING_SOURCE = ("networks", "tasks", "distillation", "training")


def new_network(
    context: Context, role: TeachingNetwork | Student, task: Task, *, seed: int | None = None
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


def load_network(context: Context, task: Task, role: TeachingNetwork, stage: Stage) -> nn.Module:
    """The network that a stage left."""
    network = new_network(context, role, task)
    load_weights(network, stage.path(WEIGHTS))
    return network.eval()


def load_student(context: Context, task: Task, stage: Stage) -> nn.Module:
    """The finished fp32 student."""
    network = shipped(context, task, new_network(context, context.recipe.student, task))
    load_weights(network, stage.path(WEIGHTS))
    return network.eval()


def shipped(context: Context, task: Task, student: nn.Module, heads: State | None = None) -> nn.Module:
    """What ships of a student: all of it, or its part up to the recipe's exit.

    Args:
        context: what every stage is given.
        task: what it learned.
        student: the whole network.
        heads: state of the heads that were trained with it; None gives the exit random weights.

    Raises:
        NetworkError: the student cannot end at the exit.
        UsageError: there is no exit there.
    """
    tap = context.recipe.student.exit
    if tap is None:
        return student
    role = setting_of(student, {}, task).student
    if heads is None:
        return early_exit(student, tap, untrained_exit(role, tap, task.num_classes))
    return early_exit(student, tap, trained_exit(heads, role, tap, task.num_classes))


def example_input(task: Task) -> Tensor:
    """Two normalized training examples."""
    return torch.from_numpy(task.normalize(task.train.x[:2]))


def network_ingredients(role: TeachingNetwork | Student) -> dict[str, Any]:
    """All that a network is made of but its weights, the source of a user's own function included."""
    data: dict[str, Any] = {"network": role.network, "args": role.args}
    if isinstance(role, Student) and role.exit is not None:
        data["exit"] = role.exit
    if role.network.startswith(PYTHON):
        data["source"] = _own_source(role.network, NetworkError)
    elif role.network.startswith(TIMM):
        data["versions"] = package_versions("timm")
    return data


def objective_ingredients(distillation: Distillation) -> dict[str, Any]:
    """All that an objective is made of but edgekd's own source: its section, and the user's own terms."""
    own = {term.kind for term in distillation.terms if isinstance(term, PythonTerm) and term.weight}
    sources = {kind: _own_source(kind, UsageError) for kind in sorted(own)}
    return {"distillation": section(distillation), **({"own_terms": sources} if sources else {})}


def _own_source(address: str, raises: type[EdgekdError]) -> list[str]:
    """Digests of the files that a user's own function is written in."""
    return [sha256_file(path) for path in source_files(address, raises=raises)]


def training_ingredients(
    context: Context, task: Task, training: Training | QuantizedTraining, *made_by: str
) -> dict[str, Any]:
    """All that a training is made of but its networks and its objective.

    Args:
        context: what every stage is given.
        task: what is learned, as the training is given it.
        training: the section.
        made_by: files of edgekd that arrange it, beside those that train.
    """
    precision = resolve_precision(training.precision, task.input_shape)
    return {
        "task": task.fingerprint,
        "augmentation": section(task.augmentation),
        "training": section(training, without=("precision",)),
        "precision": str(precision),
        "seed": context.recipe.seed,
        "source": source_digest(*_TRAINING_SOURCE, "pipeline/networks.py", *made_by),
        "versions": package_versions("torch", "lightning-fabric", "timm"),
    }


def given_weights(context: Context, role: TeachingNetwork | Student) -> Path | None:
    """The file of weights that a recipe names."""
    return None if role.weights is None else context.base_dir / role.weights


def digest_of(path: Path | None) -> str | None:
    """Digest of a given file; None where none is given, or it is not there, which its reader reports."""
    return sha256_file(path) if path is not None and path.is_file() else None


def keep_network(network: nn.Module, result: TrainingResult, folder: Path, task: Task) -> None:
    """Write what a training came to into the folder of its stage."""
    save_weights(network, folder / WEIGHTS, classes=task.classes)
    keep_result(result.summary(), folder)


def keep_result(summary: dict[str, Any], folder: Path) -> None:
    """Write how a stage went; its `flags` become notes of the report."""
    write_text(folder / RESULT, json.dumps(summary, indent=2) + "\n")
