"""What a method adds for training costs nothing at deployment: every student exports to the plain graph."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

from edgekd.conversion.to_onnx import export_fp32
from edgekd.distillation.frozen_heads import headed_terms
from edgekd.documents.methods import METHODS
from edgekd.documents.recipe import Distillation, Training
from edgekd.networks.network import build_network
from edgekd.quantization.trace import trace
from edgekd.training.heads import train_heads
from edgekd.training.trainer import train_network
from tests.training.cases import make_task

TASK = make_task(train=64)
TRAINING = Training(epochs=1, batch_size=32, learning_rate=0.01)
CONVOLUTIONAL = [name for name in METHODS if name != "minilm"]  # of attention, which resnet8 has not


def network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return build_network("resnet8", in_channels=1, num_classes=3, input_shape=(1, 8, 8))


def program(trained: nn.Module) -> str:
    """What the quantizer and the exporter see of a network: every operation, with its inputs."""
    return trace(trained.eval(), torch.randn(2, 1, 8, 8)).code


def operators(trained: nn.Module, path: Path) -> list[str]:
    export_fp32(trained.eval(), TASK.input, path, opset=21)
    return [node.op_type for node in onnx.load(path).graph.node]


def short(distillation: Distillation) -> Distillation:
    """With one epoch for the heads on the teacher."""
    once = {"epochs": 1, "batch_size": 32, "schedule": "cosine", "milestones": ()}
    terms = [
        term.model_copy(update={"head_training": term.head_training.model_copy(update=once)})
        if hasattr(term, "head_training")
        else term
        for term in distillation.terms
    ]
    return distillation.model_copy(update={"terms": tuple(terms)})


def distilled(method: str, folder: Path) -> nn.Module:
    distillation = short(METHODS[method].objective_for("resnet8", "resnet8", TRAINING.epochs))
    teacher, student = network(1), network(2)
    heads = {
        term.kind: train_heads(teacher, TASK, term, checkpoint_dir=folder / term.kind, seed=0)[0]
        for term in headed_terms(distillation)
    }
    train_network(
        student, TASK, TRAINING, distillation, teacher=teacher, checkpoint_dir=folder, seed=0, heads=heads
    )
    return student


@pytest.mark.parametrize("method", CONVOLUTIONAL)
def test_the_student_is_what_it_was_but_for_its_weights(method: str, tmp_path: Path) -> None:
    student, plain = distilled(method, tmp_path), network(2)
    assert list(student.state_dict()) == list(plain.state_dict())
    assert not any(module._forward_hooks for module in student.modules())
    assert program(student) == program(plain)


@pytest.mark.parametrize("method", ["sskd", "exits", "crd"])
def test_the_graph_has_the_operators_of_the_plain_one(method: str, tmp_path: Path) -> None:
    plain = operators(network(2), tmp_path / "plain.onnx")
    assert operators(distilled(method, tmp_path), tmp_path / "student.onnx") == plain
