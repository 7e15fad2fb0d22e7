"""The teacher runs in its own arithmetic, also beside a depthwise student, which a CPU trains in fp32."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Distillation, Training
from edgekd.training import precision
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, make_network, make_task


class Noting(nn.Module):
    """Notes in which arithmetic it runs."""

    halved: ClassVar[dict[str, set[bool]]] = {}

    def __init__(self, name: str, *, groups: int) -> None:
        super().__init__()
        self.name = name
        self.spread = nn.Conv2d(1, 8, 1)
        self.filter = nn.Conv2d(8, 8, 3, groups=groups)
        self.network = make_network(3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        if len(x_BCHW) == 32:  # a training batch; validation is always in fp32
            Noting.halved.setdefault(self.name, set()).add(torch.is_autocast_enabled("cpu"))
        return self.network(self.filter(self.spread(x_BCHW)).mean(1, keepdim=True))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU runs depthwise convolutions in bf16")
def test_the_teacher_of_a_depthwise_student_runs_in_bf16(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "cpu_has_bf16", lambda: True)
    train_network(
        Noting("student", groups=8),
        make_task(augmentation=NOISY, size=16),
        Training(epochs=1, batch_size=32, learning_rate=0.01),
        Distillation(),
        teacher=Noting("teacher", groups=1),
        checkpoint_dir=tmp_path,
        seed=0,
    )
    assert Noting.halved == {"student": {False}, "teacher": {True}}
