"""What a finished network answers on the validation and the test split, kept for statistics without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from edgekd.distillation.guidance import closed_form_weight
from edgekd.pipeline.compare.judge import CORRECT
from edgekd.pipeline.context import Context
from edgekd.pipeline.prove import load_array, save_array
from edgekd.pipeline.provenance import package_versions, source_digest
from edgekd.pipeline.run_folder import Stage
from edgekd.tasks.task import Split, Task
from edgekd.training.evaluate import predict_logits

TEST, VALIDATION = "test-probabilities.npy", "validation-probabilities.npy"
"""Probabilities on a split, (N, K) float16."""
_SOURCE = ("networks", "tasks", "training/evaluate.py", "pipeline/networks.py", "pipeline/compare/answers.py")


def answers_of(
    context: Context, task: Task, name: str, ingredients: Any, load: Callable[[], nn.Module]
) -> Stage:
    """The stage `NAME-answers`.

    Args:
        context: what every stage is given.
        task: whose validation and test splits are answered.
        name: of the stage that made the network.
        ingredients: what the network is made of.
        load: gives the network.
    """
    everything = {
        "network": ingredients,
        "task": task.fingerprint,
        "source": source_digest(*_SOURCE),
        "versions": package_versions("torch"),
    }

    def work(folder: Path) -> None:
        network = load()
        test_NK = _probabilities(network, task, task.test)
        save_array(folder / TEST, test_NK.astype(np.float16))
        save_array(folder / VALIDATION, _probabilities(network, task, task.validation).astype(np.float16))
        save_array(folder / CORRECT, test_NK.argmax(axis=1) == task.test.y)

    return context.make(f"{name}-answers", "answer the test split", everything, work)


def label_weight(task: Task, of_labels: Stage, of_teacher: Stage) -> float:
    """The weight of the labels that fits the validation split best, from the answers of two students."""
    onehot_NK = np.eye(task.num_classes)[task.validation.y]
    labels_NK, teacher_NK = (load_array(stage.path(VALIDATION)) for stage in (of_labels, of_teacher))
    return closed_form_weight(labels_NK, teacher_NK, onehot_NK)


def _probabilities(network: nn.Module, task: Task, split: Split) -> NDArray[np.float64]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    logits_NK = predict_logits(network.to(device), torch.from_numpy(task.normalize(split.x)).to(device))
    probabilities: NDArray[np.float64] = torch.softmax(logits_NK.double(), dim=1).cpu().numpy()
    return probabilities
