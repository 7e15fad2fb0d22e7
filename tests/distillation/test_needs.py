"""What `edgekd methods list` says that a method needs is what its terms really read."""

import pytest
import torch
from torch import nn

from edgekd.distillation.frozen_heads import untrained_heads
from edgekd.distillation.objective import Objective, build_objective
from edgekd.distillation.setting import Role, Setting
from edgekd.distillation.step import TEACHER
from edgekd.documents.change import change
from edgekd.documents.methods import METHODS
from edgekd.documents.views import PRETEXT, STRONG, WEAK
from edgekd.networks.network import build_network
from edgekd.networks.taps import tap_shapes

SHAPE = (1, 8, 8)


class Attention(nn.Module):
    """Four tokens whose queries, keys and values are a tap."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.logits = nn.Linear(48, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.logits(self.qkv(x.reshape(len(x), 4, 16)).mean(dim=1))


def role(name: str, network: nn.Module) -> Role:
    return Role(name, network, tap_shapes(network, torch.zeros(2, *SHAPE)))


def network(name: str) -> nn.Module:
    return build_network(name, in_channels=1, num_classes=5, input_shape=SHAPE)


def objective_of(name: str) -> Objective:
    method = METHODS[name]
    objective, pair = method.objective, (network("resnet8"), network("wrn-16-2"))
    if name == "minilm":
        objective, _ = change(objective, "minilm", {"student_heads": 2, "teacher_heads": 2})
        pair = (Attention(), Attention())
    teachers = {TEACHER: role(TEACHER, pair[1])} if "teacher" in method.needs else {}
    views = (WEAK, STRONG, *PRETEXT)
    bare = Setting(student=role("student", pair[0]), sources=teachers, num_classes=5, count=40, views=views)
    heads = untrained_heads(objective, bare)
    return build_objective(objective, Setting(**{**vars(bare), "heads": heads}))


@pytest.mark.parametrize("name", METHODS)
def test_the_needs_of_a_method(name: str) -> None:
    objective = objective_of(name)
    terms = [part.term for part in objective.parts]
    found = {
        "teacher": TEACHER in objective.sources,
        "labels": any(part.name == "labels" or part.term.reads_labels for part in objective.parts),
        "views": len(objective.views) > 1,
        "taps": bool(objective.student_taps),
        "memory": any(term.memory for term in terms),
        "heads": any(True for term in terms for _ in term.parameters()),
    }
    assert METHODS[name].needs == tuple(need for need, needed in found.items() if needed)
