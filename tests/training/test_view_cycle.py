"""Batches that come again: the teacher is asked about each once, and nothing else changes."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from edgekd.documents.recipe import Distillation, Training
from edgekd.training import sources
from edgekd.training.data import Resident
from edgekd.training.precision import Precision
from edgekd.training.sources import Sources
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, make_network, make_task, same_weights

CYCLE = Training(epochs=5, batch_size=32, learning_rate=0.05, precision="fp32", view_cycle=2)


class Noting(nn.Module):
    """Notes the batches that it is asked about."""

    seen: ClassVar[list[Tensor]] = []

    def __init__(self) -> None:
        super().__init__()
        self.network = make_network(3)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        Noting.seen.append(x_BCHW)
        return self.network(x_BCHW)


@pytest.fixture(autouse=True)
def _forget() -> None:
    Noting.seen = []


def train(folder: Path, training: Training, listener: Listener | None = None) -> nn.Module:
    network = make_network()
    train_network(
        network,
        make_task(augmentation=NOISY),  # noise: no view comes twice by chance
        training,
        Distillation(),
        teacher=Noting(),
        checkpoint_dir=folder,
        seed=0,
        progress=listener,
    )
    return network


def training_batches() -> list[Tensor]:
    """The batches of 32; examples and validation examples come in other numbers."""
    return [seen for seen in Noting.seen if len(seen) == 32]


def test_the_teacher_is_asked_in_the_first_cycle_only(tmp_path: Path) -> None:
    train(tmp_path, CYCLE)
    first = training_batches()
    assert len(first) == 2 * 3  # two epochs of 96 examples in batches of 32
    Noting.seen = []
    train(tmp_path / "anew", CYCLE.model_copy(update={"view_cycle": 0}))
    assert len(training_batches()) == 5 * 3
    assert all(torch.equal(a, b) for a, b in zip(first, training_batches()[:6], strict=True))


def test_kept_answers_are_those_that_would_be_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = train(tmp_path / "kept", CYCLE)
    Noting.seen = []
    monkeypatch.setattr(sources, "_MOST_CACHED", 0)
    computed = train(tmp_path / "computed", CYCLE)
    batches = training_batches()
    assert len(batches) == 5 * 3
    assert all(torch.equal(a, b) for a, b in zip(batches[:6], batches[6:12], strict=True))
    assert not torch.equal(batches[0], batches[3])
    assert same_weights(kept, computed)
    assert not same_weights(kept, train(tmp_path / "anew", CYCLE.model_copy(update={"view_cycle": 0})))


@pytest.mark.parametrize("die_after", [1, 3])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, die_after: int) -> None:
    straight = train(tmp_path / "straight", CYCLE)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", CYCLE, Listener(die_after=die_after))
    assert same_weights(straight, train(tmp_path / "resumed", CYCLE))


def test_as_many_answers_are_kept_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_MOST_CACHED", 2 * 4 * 3 * 4 + 1)  # two batches of 4 rows and 3 logits
    torch.manual_seed(0)
    train = Resident(torch.randn(12, 1, 8, 8), torch.zeros(12, dtype=torch.int64))
    opened = Sources(
        {"teacher": Noting()},
        train,
        taps={"teacher": ()},
        views=("weak",),
        fixed=None,
        precision=lambda network: Precision("fp32", channels_last=False),
    )

    def ask(step: int) -> Tensor:
        indices_B = torch.arange(4 * step, 4 * step + 4)
        return opened(indices_B, train.x_NC[indices_B], (1, step))["teacher"].logits_RK

    said = [ask(step) for step in range(3)]
    again = [ask(step) for step in range(3)]
    assert len(Noting.seen) == 4
    assert all(torch.equal(a, b) for a, b in zip(said, again, strict=True))
    assert not torch.equal(said[0], said[1])
