"""Probabilities taken apart at the label."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.logits import log_probabilities
from edgekd.distillation.target import split_at


def test_parts_of_a_known_distribution() -> None:
    split = split_at(torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log(), torch.tensor([1, 2]))
    assert split.target_B.exp().tolist() == pytest.approx([0.3, 0.8])
    assert split.rest_B.exp().tolist() == pytest.approx([0.7, 0.2])
    assert split.others_BK[0].exp().tolist() == pytest.approx([5 / 7, 1.0, 2 / 7])
    assert split.others_BK[1].tolist() == pytest.approx([-0.6931472, -0.6931472, 0.0])
    assert split.is_target_BK.tolist() == [[False, True, False], [False, False, True]]


def test_a_very_sure_network_leaves_finite_logarithms_and_gradients() -> None:
    logits_BK = torch.tensor([[40_000.0, 10.0, 9.0]], requires_grad=True)
    split = split_at(log_probabilities(logits_BK, 1.0), torch.tensor([0]))
    assert split.target_B.item() == 0.0
    assert split.rest_B.item() == pytest.approx(10 + 0.3132617 - 40_000)
    assert split.others_BK[0, 1:].exp().tolist() == pytest.approx([0.7310586, 0.2689414], rel=1e-2)
    (split.rest_B + split.others_BK.sum(dim=1)).sum().backward()
    assert torch.isfinite(logits_BK.grad).all()
