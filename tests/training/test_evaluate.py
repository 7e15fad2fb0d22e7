"""Logits of a whole split."""

from __future__ import annotations

import math

import pytest
import torch

from edgekd.training import evaluate
from edgekd.training.data import Resident
from edgekd.training.evaluate import in_chunks, judge, predict_logits
from tests.training.cases import make_network


def test_logits_in_chunks_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network().eval()
    x_NC = torch.randn(10, 1, 8, 8)
    with torch.no_grad():
        expected_NK = network(x_NC)
    monkeypatch.setattr(evaluate, "_LEAST_ROWS", 3)
    monkeypatch.setattr(evaluate, "_CPU_POSITIONS", 3 * 8 * 8 + 1)
    assert [len(part) for part in in_chunks(x_NC)] == [3, 3, 3, 1]
    torch.testing.assert_close(predict_logits(network, x_NC), expected_NK)


def test_a_cpu_takes_more_small_examples_at_once_than_large_ones() -> None:
    def rows(*shape: int) -> int:
        return len(in_chunks(torch.empty(1, *shape).expand(5000, *shape))[0])

    assert [rows(3, 32, 32), rows(1, 8, 8), rows(1, 4000), rows(7), rows(3, 224, 224)] == [
        64,
        1024,
        16,
        5000,
        8,
    ]


def test_every_module_gets_its_mode_back() -> None:
    network = make_network().train()
    network.bn2.eval()
    before = {name: module.training for name, module in network.named_modules()}
    running_mean = network.bn1.running_mean.clone()  # type: ignore[union-attr]
    predict_logits(network, torch.randn(4, 1, 8, 8))
    assert {name: module.training for name, module in network.named_modules()} == before
    assert torch.equal(network.bn1.running_mean, running_mean)  # type: ignore[arg-type]


def test_loss_and_top1() -> None:
    logits_NK = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 0.0]])
    judged = judge(logits_NK, Resident(logits_NK, torch.tensor([0, 1, 1, 0])))
    right, wrong, even = math.log(1 + math.exp(-2)), math.log(1 + math.exp(3)), math.log(2)
    assert judged.loss == pytest.approx((2 * right + wrong + even) / 4, rel=1e-6)
    assert judged.top1 == 0.75
    assert judged.kl is None


def test_distance_to_the_teacher() -> None:
    teacher_NK, own_NK = torch.tensor([[1.0, 0.0], [0.0, 3.0]]), torch.tensor([[0.0, 0.0], [0.0, 3.0]])
    judged = judge(own_NK, Resident(own_NK, torch.tensor([0, 1])), teacher_NK)
    p = math.exp(1) / (1 + math.exp(1))
    expected = (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))) / 2
    assert judged.kl == pytest.approx(expected, rel=1e-5)


def test_the_distance_is_never_below_zero() -> None:
    draw = torch.Generator().manual_seed(0)
    for _ in range(20):
        teacher_NK = 4 * torch.randn(64, 10, generator=draw)
        own_NK = teacher_NK * (1 + 1e-7)
        judged = judge(own_NK, Resident(own_NK, torch.zeros(64, dtype=torch.long)), teacher_NK)
        assert judged.kl is not None
        assert 0 <= judged.kl < 1e-6
