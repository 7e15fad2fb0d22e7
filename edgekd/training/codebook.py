"""Quantized distillation and differentiable quantization: students whose weights are codes.

    quantized distillation        the weights learn, and every forward pass rounds them to uniform points
    differentiable quantization   the weights stay, and the points learn

Both are judged, epoch by epoch, on the weights that a file of codebooks will hold, and both end with the
codebooks of the best epoch, with the batch-norm statistics of that epoch. Such a student is small to store
and to send, and computes in float (see edgekd/conversion/codebook_graph.py).
Source: Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018, and its
authors' code. Departures: learning rates follow the section's schedule; what a fine-tuning begins with is a
candidate too.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from edgekd.distillation.labels import UNLABELED
from edgekd.distillation.objective import Objective, build_quantized_objective
from edgekd.distillation.setting import Setting, State
from edgekd.distillation.step import SELF, TEACHER
from edgekd.documents.recipe import Devices, Distillation, QuantizedTraining, Training
from edgekd.documents.terms import KDTerm
from edgekd.errors import UsageError
from edgekd.quantization.codebook import Codebooks
from edgekd.quantization.codebook_network import (
    CodebookNetwork,
    PointNetwork,
    UniformNetwork,
    coded_parameters,
)
from edgekd.quantization.levels import share_out_levels
from edgekd.tasks.task import Task
from edgekd.training.data import epoch_order
from edgekd.training.launch import run_plan
from edgekd.training.plan import Plan
from edgekd.training.precision import resolve_precision
from edgekd.training.progress import Progress, Silent
from edgekd.training.result import TrainingResult
from edgekd.training.setting import setting_of
from edgekd.training.trainer import FloatPhases, objective_for

PUBLISHED_OBJECTIVE = Distillation(label_weight=0.3, terms=(KDTerm(weight=0.7, temperature=2.0),))
"""0.3 CE + 0.7 T^2 KL at T = 2, the objective of the paper's code for both methods."""
POINT_TRAINING = QuantizedTraining(
    epochs=10,
    learning_rate=1e-4,
    weight_decay=0.0,
    label_weight=0.3,
    self_weight=0.7,
    self_temperature=2.0,
    teacher_weight=0.0,
)
"""Differentiable quantization as published: the network in float is the teacher. The rate is ours, measured
once (ResNet-8, 4,800 Fashion-MNIST, 3 epochs, 1e-5 to 1e-3): best at 3 bits; at 2 bits 1e-5 is steadier."""
_GRADIENT_BATCHES = 5
"""Batches over which the gradient is taken that shares out the points."""


def train_quantized_distillation(
    student: nn.Module,
    task: Task,
    section: Training | QuantizedTraining,
    distillation: Distillation = PUBLISHED_OBJECTIVE,
    *,
    bits: int = 4,
    bucket: int | None = 256,
    float_ends: bool = False,
    kept_float: Collection[str] = (),
    teacher: nn.Module | None,
    checkpoint_dir: Path,
    seed: int,
    progress: Progress | None = None,
    devices: Devices = "auto",
    heads: Mapping[str, State] = {},
) -> tuple[TrainingResult, Codebooks]:
    """Train a student behind uniform rounding of its weights, or take up an interrupted training.

    Args:
        student: where it starts; left as it is.
        task: its training and validation splits are used, its test split is not.
        section: how to train. With a `Training` the objective is `distillation`. With a `QuantizedTraining`
            it is that of quantization-aware distillation: labels, the terms and the student itself by the
            section's weights; the student as it came, rounded, is then a candidate too.
        distillation: the objective, or the terms that learn from the teacher.
        bits: of a code, 1 to 8.
        bucket: weights that share a range; None is a whole tensor.
        float_ends: leave the first and the last weight of the network in float.
        kept_float: names of other weights to leave in float.
        teacher: needed by the terms; left as it is.
        checkpoint_dir: a folder for the checkpoints of this training alone.
        seed: of the order, the augmentation, dropout and heads.
        progress: hears how it goes; None says nothing.
        devices: how many GPUs, or how many processes where there is no GPU; `auto` is one.
        heads: kind of a term -> state of its head on the frozen teacher, for the terms that need one.

    Returns:
        How it went, and the codebooks of the best epoch.

    Raises:
        DivergedError: the loss is no longer finite; names the step.
        NetworkError: a network does not give one logit a class.
        UsageError: bits or bucket are out of range, or a term lacks something that it reads.
        StorageError: a checkpoint cannot be written.
    """
    _check_scheme(bits, bucket)
    names = coded_parameters(student, float_ends=float_ends, kept_float=kept_float)
    network = UniformNetwork(copy.deepcopy(student), names, levels=2**bits, bucket=bucket)
    setting = setting_of(network, {TEACHER: teacher, SELF: student}, task, heads=heads)
    objective = _objective(section, distillation, setting, seed=seed)
    plan = _plan(network, task, section, objective, setting, checkpoint_dir=checkpoint_dir, seed=seed)
    result = run_plan(plan, progress=progress or Silent(), devices=devices)
    return result, network.codebooks()


def train_differentiable_quantization(
    student: nn.Module,
    task: Task,
    section: QuantizedTraining = POINT_TRAINING,
    distillation: Distillation = PUBLISHED_OBJECTIVE,
    *,
    bits: int = 4,
    bucket: int | None = 256,
    float_ends: bool = False,
    kept_float: Collection[str] = (),
    points_by_gradient: bool = False,
    teacher: nn.Module | None = None,
    checkpoint_dir: Path,
    seed: int,
    progress: Progress | None = None,
    devices: Devices = "auto",
) -> tuple[TrainingResult, Codebooks]:
    """Learn the points of a trained student's codebooks, or take up an interrupted training.

    Args:
        student: trained; left as it is, and the source `self` of the objective.
        task: its training and validation splits are used, its test split is not.
        section: how to train the points, and the weights of the objective: labels, terms, the student itself.
        distillation: the terms that learn from the teacher, as far as the section gives them a weight.
        bits: a tensor has 2^bits points, 1 to 8.
        bucket: weights that share a range; None is a whole tensor.
        float_ends: leave the first and the last weight of the network in float.
        kept_float: names of other weights to leave in float.
        points_by_gradient: give tensors with a larger gradient more points: 2^bits on average, at least half
            of that. A tensor with more than 2^bits points has longer codes.
        teacher: needed by the terms; left as it is.
        checkpoint_dir: a folder for the checkpoints of this training alone.
        seed: of the order, the augmentation and dropout.
        progress: hears how it goes; None says nothing.
        devices: how many GPUs, or how many processes where there is no GPU; `auto` is one.

    Returns:
        How it went, and the codebooks of the best epoch; points at the quantiles are epoch 0.

    Raises:
        DivergedError: the loss is no longer finite; names the step.
        NetworkError: a network does not give one logit a class.
        UsageError: bits or bucket are out of range, or a term lacks something that it reads.
        StorageError: a checkpoint cannot be written.
    """
    _check_scheme(bits, bucket)
    names = coded_parameters(student, float_ends=float_ends, kept_float=kept_float)
    levels = dict.fromkeys(names, 2**bits)
    if points_by_gradient:
        norms = gradient_norms(student, task, names, batch_size=section.batch_size, seed=seed)
        levels = dict(zip(names, share_out_levels(norms, 2**bits), strict=True))
    network = PointNetwork(copy.deepcopy(student), names, levels=levels, bucket=bucket)
    setting = setting_of(network, {TEACHER: teacher, SELF: student}, task)
    objective = _objective(section, distillation, setting, seed=seed)
    plan = _plan(network, task, section, objective, setting, checkpoint_dir=checkpoint_dir, seed=seed)
    result = run_plan(plan, progress=progress or Silent(), devices=devices)
    return result, network.codebooks()


def gradient_norms(
    network: nn.Module, task: Task, names: Collection[str], *, batch_size: int, seed: int
) -> tuple[float, ...]:
    """Euclidean norm of the gradient of the mean cross-entropy over the first five batches, by parameter.

    Args:
        network: trained; left as it is.
        task: its training split is used, without augmentation, as far as it has labels.
        names: of the parameters.
        batch_size: examples of a batch.
        seed: of the batches.
    """
    network = copy.deepcopy(network).cpu().eval().requires_grad_(True)
    steps = max(1, len(task.train.y) // batch_size)
    batches = epoch_order(len(task.train.y), steps=steps, seed=seed, epoch=1)[:_GRADIENT_BATCHES]
    for indices_B in batches:
        x_BC = torch.from_numpy(task.normalize(task.train.x[indices_B.numpy()]))
        labels_B = torch.from_numpy(task.train.y[indices_B.numpy()])
        loss = F.cross_entropy(network(x_BC), labels_B, ignore_index=UNLABELED, reduction="sum")
        (loss / len(labels_B) / len(batches)).backward()  # type: ignore[no-untyped-call]
    gradients = {name: parameter.grad for name, parameter in network.named_parameters()}
    return tuple(0.0 if (one := gradients[name]) is None else float(one.norm()) for name in names)


def _plan(
    network: CodebookNetwork,
    task: Task,
    section: Training | QuantizedTraining,
    objective: Objective,
    setting: Setting,
    *,
    checkpoint_dir: Path,
    seed: int,
) -> Plan:
    return Plan(
        network=network,
        task=task,
        section=section,
        objective=objective,
        teachers={name: setting.sources[name].network for name in objective.sources},
        phases=FloatPhases(),
        precision=resolve_precision(section.precision, task.input_shape, network),
        checkpoint_dir=checkpoint_dir,
        seed=seed,
        starts_trained=isinstance(section, QuantizedTraining),
        scheme=network.fingerprint,
    )


def _objective(
    section: Training | QuantizedTraining, distillation: Distillation, setting: Setting, *, seed: int
) -> Objective:
    if isinstance(section, QuantizedTraining):
        return build_quantized_objective(section, distillation, setting)
    return objective_for(setting, section, distillation, seed=seed)


def _check_scheme(bits: int, bucket: int | None) -> None:
    if not 1 <= bits <= 8:
        raise UsageError(f"{bits} bits for a code; from 1 to 8 are possible")
    if bucket is not None and bucket < 1:
        raise UsageError(f"a bucket of {bucket} weights; at least 1 is possible, or None for a whole tensor")
