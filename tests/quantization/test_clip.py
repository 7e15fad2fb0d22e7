from __future__ import annotations

import numpy as np
import pytest
import torch

from edgekd.quantization.clip import best_fractions
from tests.quantization.test_grid import values


def error(row: np.ndarray, fraction: float, limit: int) -> float:
    scale = fraction * np.abs(row).max() / limit
    return float(((np.clip(np.rint(row / scale), -limit, limit) * scale - row) ** 2).sum())


@pytest.mark.parametrize("limit", [7, 63])
def test_no_other_fraction_has_a_smaller_error(limit: int) -> None:
    weight = values(0, (8, 4, 3, 3))
    found = best_fractions(weight, limit).numpy()
    for row, fraction in zip(weight.flatten(1).numpy().astype(np.float64), found, strict=True):
        least = min(error(row, percent / 100, limit) for percent in range(30, 101))
        assert error(row, float(fraction), limit) <= least * (1 + 1e-5)


def test_an_outlier_is_clipped_and_weights_on_the_grid_are_not() -> None:
    bulk = torch.linspace(-1, 1, 1023)
    weight = torch.stack([torch.cat([bulk, torch.tensor([2.0])]), torch.arange(1024) % 15 / 7 - 1])
    found = best_fractions(weight, 7)
    assert found[0] < 0.7
    assert found[1] == 1


def test_few_bits_gain_and_many_hardly() -> None:
    weight = values(1, (16, 288))
    rows = weight.numpy().astype(np.float64)

    def gain(limit: int) -> float:
        fractions = best_fractions(weight, limit).numpy()
        best = sum(error(row, float(f), limit) for row, f in zip(rows, fractions, strict=True))
        return best / sum(error(row, 1.0, limit) for row in rows)

    assert gain(7) < 0.75 < 0.9 < gain(127)


def test_a_dead_channel_keeps_its_whole_range() -> None:
    assert best_fractions(torch.zeros(2, 5), 7).tolist() == [1, 1]


def test_the_layout_in_memory_makes_no_difference() -> None:
    weight = values(0, (8, 4, 3, 3))
    laid_out = weight.contiguous(memory_format=torch.channels_last)
    assert torch.equal(best_fractions(laid_out, 7), best_fractions(weight, 7))
