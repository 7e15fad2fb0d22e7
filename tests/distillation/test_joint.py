"""Joint labels: class and transformation at once, view after view."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.distillation.joint import TURNS, aggregated_logits, joint_cross_entropy, joint_labels
from edgekd.distillation.labels import UNLABELED


def test_the_labels_of_the_rows_of_four_views() -> None:
    assert TURNS == ("weak", "pretext1", "pretext2", "pretext3")
    assert joint_labels(torch.tensor([2, 0])).tolist() == [8, 0, 9, 1, 10, 2, 11, 3]


def test_an_example_without_a_label_has_no_joint_label() -> None:
    assert joint_labels(torch.tensor([UNLABELED, 1])).tolist() == [-1, 4, -1, 5, -1, 6, -1, 7]


def test_examples_without_labels_are_no_part_of_the_mean() -> None:
    logits_RJ = torch.randn(4, 3, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels_B = torch.tensor([1, UNLABELED, 0])
    some = joint_cross_entropy(logits_RJ.flatten(0, 1), labels_B)
    alone = joint_cross_entropy(logits_RJ[:, [0, 2]].flatten(0, 1), labels_B[[0, 2]])
    assert some.item() == pytest.approx(alone.item())
    assert joint_cross_entropy(logits_RJ.flatten(0, 1), torch.full((3,), UNLABELED)).item() == 0


def test_the_aggregated_prediction() -> None:
    rng = np.random.default_rng(0)
    logits_VBKV = rng.normal(size=(4, 3, 5, 4))
    rows_RJ = torch.from_numpy(logits_VBKV.reshape(12, 20))
    expected = sum(logits_VBKV[turn, :, :, turn] for turn in range(4)) / 4
    assert aggregated_logits(rows_RJ).numpy() == pytest.approx(expected)
