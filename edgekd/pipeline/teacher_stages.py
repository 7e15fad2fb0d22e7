"""The stages that a teacher is made in: one a network, one for their shares, or one for a file of answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.documents.teacher import Teacher, TeachingNetwork
from edgekd.files import write_text
from edgekd.networks.weights import load_weights, save_weights
from edgekd.pipeline.context import Context
from edgekd.pipeline.networks import (
    WEIGHTS,
    digest_of,
    given_weights,
    keep_network,
    keep_result,
    load_network,
    network_ingredients,
    new_network,
    training_ingredients,
)
from edgekd.pipeline.prove import save_array
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.pipeline.stage_files import ANSWERS, MEMBERS, TEST_ANSWERS
from edgekd.tasks.answers import read_answers
from edgekd.tasks.task import Task
from edgekd.tasks.unlabeled import labeled_part
from edgekd.training.class_order import PROBE, Agreement, check_agreement, near_chance
from edgekd.training.data import derive_seed
from edgekd.training.ensemble import Ensemble, shares_of
from edgekd.training.evaluate import predict_logits
from edgekd.training.random_teacher import estimate_statistics
from edgekd.training.trainer import train_network
from edgekd.training.transferability import transferability

_PLACE = "pipeline/teacher_stages.py"
_SOURCE = ("networks", "tasks", "training", "pipeline/networks.py", _PLACE)


def is_trained(role: TeachingNetwork) -> bool:
    """Whether it is trained in its stage, which takes its time."""
    return role.weights is None and not role.untrained


def network_stage(context: Context, task: Task, role: TeachingNetwork, name: str, place: int) -> Stage:
    """One network: loaded and checked, left random, or trained; the main one has place 0."""
    stage = name if place == 0 else f"{name}-{place + 1}"
    seed = _seed_of(context.recipe.seed, role, place)
    given = given_weights(context, role)
    ingredients = {
        "network": network_ingredients(role),
        "given": digest_of(given),
        "untrained": role.untrained,
        **training_ingredients(context, task, role.training, _PLACE),
        "seed": seed,
    }
    if given is not None:
        del ingredients["training"], ingredients["precision"], ingredients["augmentation"]

    def work(folder: Path) -> None:
        network = new_network(context, role, task, seed=seed)
        if given is not None:
            _take(context, network, given, task, folder, stage)
        elif role.untrained:
            estimate_statistics(network, task, seed=seed)
            save_weights(network, folder / WEIGHTS, classes=task.classes)
            keep_result({"flags": []}, folder)
        else:
            _train(context, network, task, role, folder, stage, seed=seed)

    what = "load" if given is not None else "draw" if role.untrained else "train"
    return context.make(stage, f"{what} the teacher {role.network}", ingredients, work)


def _seed_of(seed: int, role: TeachingNetwork, place: int) -> int:
    """The seed of a network; one that stays random must not begin as the student does."""
    kind = "untrained" if role.untrained else "teacher"
    return seed if place == 0 and not role.untrained else derive_seed(seed, kind, place)


def _take(context: Context, network: nn.Module, given: Path, task: Task, folder: Path, stage: str) -> None:
    """Weights from elsewhere, if they answer in the task's order of classes."""
    load_weights(network, given, classes=task.classes)
    chosen = _probe(context, task)
    logits_PK = predict_logits(network, torch.from_numpy(task.normalize(task.train.x[chosen])))
    agreement = check_agreement(
        logits_PK.argmax(1).numpy(), task.train.y[chosen], task.classes, where=str(given)
    )
    save_weights(network, folder / WEIGHTS, classes=task.classes)
    _keep_agreement(context, agreement, folder, stage)


def _train(
    context: Context,
    network: nn.Module,
    task: Task,
    role: TeachingNetwork,
    folder: Path,
    stage: str,
    *,
    seed: int,
) -> None:
    progress = context.listener.training(stage)
    result = train_network(
        network,
        task,
        role.training,
        None,
        teacher=None,
        checkpoint_dir=folder / "checkpoints",
        seed=seed,
        progress=progress,
        devices=role.training.devices,
    )
    labels = task.validation.y
    chance = float(np.bincount(labels).max() / len(labels))
    warnings = near_chance(result.validation_top1 or 0.0, len(labels), chance)
    for warning in warnings:
        progress.on_warning(warning)
    keep_network(network, result, folder, task)
    keep_result(result.summary() | {"flags": [*result.flags, *warnings]}, folder)


def answers_stage(context: Context, task: Task, path: Path, name: str) -> Stage:
    """The answers of a black-box teacher, by the rows of the task's file."""
    ingredients = {
        "answers": digest_of(path),
        "task": task.fingerprint,
        "seed": context.recipe.seed,
        "source": source_digest(*_SOURCE),
        "versions": package_versions("numpy", "scipy"),
    }

    def work(folder: Path) -> None:
        answers = read_answers(path, task)
        known = labeled_part(task)
        chosen = _probe(context, known)
        assert known.train.rows is not None
        said = answers.rows_NK[known.train.rows[chosen]].argmax(axis=1)
        agreement = check_agreement(said, known.train.y[chosen], task.classes, where=str(path))
        save_array(folder / ANSWERS, answers.rows_NK)
        if answers.test_NK is not None:
            save_array(folder / TEST_ANSWERS, answers.test_NK)
        _keep_agreement(context, agreement, folder, name)

    return context.make(name, f"read the teacher's answers in {path.name}", ingredients, work)


def ensemble_stage(
    context: Context, task: Task, role: Teacher, networks: Sequence[Stage], name: str
) -> Stage:
    """What each network of an ensemble is worth."""
    files = [stage.file.files[WEIGHTS] for stage in networks]
    ingredients = {
        "networks": [
            [digest, network_ingredients(one)] for digest, one in zip(files, role.networks, strict=True)
        ],
        "combine": role.combine,
        "power": role.power if role.combine == "weighted" else None,
        "task": task.fingerprint,
        "seed": context.recipe.seed,
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch", "scipy"),
    }

    def work(folder: Path) -> None:
        members = [
            load_network(context, task, one, stage)
            for one, stage in zip(role.networks, networks, strict=True)
        ]
        kept = _worth(context, task, role, members)
        for one, stage in zip(kept["members"], networks, strict=True):
            one["stage"] = stage.file.name
        write_text(folder / MEMBERS, json.dumps(kept, indent=2) + "\n")

    what = f"combine {len(networks)} teachers: {role.combine}"
    return context.make(f"{name}-ensemble", what, ingredients, work)


def _worth(context: Context, task: Task, role: Teacher, members: Sequence[nn.Module]) -> dict[str, Any]:
    """Share, score and validation top-1 of each member, and top-1 of them all together."""
    scores = [transferability(one, task, seed=context.recipe.seed) for one in members]
    power = role.power if role.combine == "weighted" else 0.0
    shares = shares_of(scores, nearest=role.combine == "nearest", power=power)
    x_NC = torch.from_numpy(task.normalize(task.validation.x))

    def top1(network: nn.Module) -> float:
        return float((predict_logits(network, x_NC).argmax(1).numpy() == task.validation.y).mean())

    return {
        "combine": role.combine,
        "validation_top1": top1(Ensemble(members, shares)),
        "members": [
            {
                "network": one.network,
                "share": share,
                "transferability": score,
                "validation_top1": top1(member),
            }
            for one, member, score, share in zip(role.networks, members, scores, shares, strict=True)
        ],
    }


def _probe(context: Context, task: Task) -> NDArray[np.int64]:
    """Training examples that a teacher from elsewhere is asked about."""
    return np.random.default_rng(context.recipe.seed).permutation(len(task.train.y))[:PROBE]


def _keep_agreement(context: Context, agreement: Agreement, folder: Path, stage: str) -> None:
    progress = context.listener.training(stage)
    for warning in agreement.warnings:
        progress.on_warning(warning)
    keep_result(
        {
            "training_top1": agreement.top1,
            "reordered_top1": agreement.reordered_top1,
            "flags": list(agreement.warnings),
        },
        folder,
    )
