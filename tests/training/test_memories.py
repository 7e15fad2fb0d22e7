"""Terms with heads, memories and draws of their own: a training that is taken up ends with the same bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from edgekd.documents.recipe import Distillation
from edgekd.documents.training import Training
from edgekd.errors import UsageError
from edgekd.training.result import TrainingResult
from edgekd.training.trainer import train_network
from tests.training.cases import NOISY, Listener, TinyConvNet, make_network, make_task, same_weights

CRD = {"kind": "crd", "student_tap": "dropout", "teacher_tap": "dropout", "negatives": 20}
PAD = {"kind": "pad", "of": {"kind": "kd"}, "student_tap": "dropout", "warmup_epochs": 1}
EXITS = {"kind": "exits", "student_taps": ("bn1",)}


def train(term: dict[str, Any], folder: Path, listener: Listener) -> tuple[TinyConvNet, TrainingResult]:
    network = make_network()
    result = train_network(
        network,
        make_task(augmentation=NOISY),
        Training(epochs=3, batch_size=32, learning_rate=0.05, precision="fp32"),
        Distillation.model_validate({"terms": (term,)}),
        teacher=make_network(3),
        checkpoint_dir=folder,
        seed=0,
        progress=listener,
    )
    return network, result


@pytest.mark.parametrize("term", [CRD, PAD, {"kind": "pskd"}, EXITS], ids=lambda term: term["kind"])
def test_a_resumed_training_ends_with_the_same_bits(tmp_path: Path, term: dict[str, Any]) -> None:
    expected, straight = train(term, tmp_path / "straight", Listener())
    with pytest.raises(KeyboardInterrupt):
        train(term, tmp_path / "cut", Listener(die_after=2))
    torch.manual_seed(99)  # what happened in between must not matter
    found, resumed = train(term, tmp_path / "cut", Listener())
    assert resumed.resumed_from == 2
    assert same_weights(found, expected)
    assert [one.parts for one in resumed.history] == [one.parts for one in straight.history]
    assert resumed.heads.keys() == straight.heads.keys()
    assert all(torch.equal(resumed.heads[name], value) for name, value in straight.heads.items())


@pytest.mark.parametrize(
    ("term", "heads"),
    [
        (CRD, ["constant", "head.0.bias", "head.0.weight"]),
        ({"kind": "pskd"}, []),
    ],
    ids=lambda value: value.get("kind") if isinstance(value, dict) else "",
)
def test_a_memory_is_no_head(tmp_path: Path, term: dict[str, Any], heads: list[str]) -> None:
    _, result = train(term, tmp_path, Listener())
    sides = ("student", "teacher")
    assert sorted(result.heads) == [f"terms.crd.{side}.{name}" for side in sides for name in heads]


def test_a_warm_up_as_long_as_the_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        train(PAD | {"warmup_epochs": 3}, tmp_path, Listener())
    assert str(caught.value) == (
        "term pad: warms up for 3 epochs of a training of 3: its weights would never count\n"
        "  try: lower warmup_epochs, or train longer"
    )
