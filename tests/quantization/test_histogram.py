from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantization.histogram import BINS, Magnitudes

VALUES = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200)


def filled(*batches: torch.Tensor) -> Magnitudes:
    magnitudes = Magnitudes()
    for batch in batches:
        magnitudes.add(batch)
    return magnitudes


@settings(max_examples=60, deadline=None)
@given(values=VALUES, cut=st.integers(0, 200), seed=st.integers(0, 9))
def test_neither_the_order_nor_the_batches_matter(values: list[float], cut: int, seed: int) -> None:
    x = torch.tensor(values)
    whole = filled(x)
    shuffled = x[torch.randperm(len(x), generator=torch.Generator().manual_seed(seed))]
    parts = filled(*(part for part in (shuffled[:cut], shuffled[cut:]) if len(part)))
    assert (parts.amax, parts.width) == (whole.amax, whole.width)
    np.testing.assert_array_equal(parts.counts, whole.counts)


@settings(max_examples=60, deadline=None)
@given(values=VALUES)
def test_it_is_numpys_histogram_over_its_range(values: list[float]) -> None:
    found = filled(torch.tensor(values))
    magnitudes = np.abs(np.array(values, np.float32)).astype(np.float64)
    assert found.amax == magnitudes.max()
    expected = np.bincount(np.floor(magnitudes / found.width).astype(np.int64), minlength=len(found.counts))
    np.testing.assert_array_equal(found.counts, expected)
    assert found.counts.sum() == len(values)
    assert found.counts[-1] > 0 or found.amax == 0


def test_merging_bins_loses_no_value() -> None:
    small = torch.linspace(0.5, 0.999, 1000)
    found = filled(small, torch.tensor([100.0]))
    assert (found.counts.sum(), found.width) == (1001, 128 / BINS)
    np.testing.assert_array_equal(found.counts, filled(torch.tensor([*small.tolist(), 100.0])).counts)


def test_the_largest_magnitude_lies_in_the_upper_half() -> None:
    for amax in (0.01, 1.0, 1.5, 2.0, 1000.0, 3e38):
        found = filled(torch.tensor([0.0, -amax]))
        assert BINS / 2 < len(found.counts) <= BINS


def test_what_was_not_finite_once_stays_so() -> None:
    nan = filled(torch.tensor([1.0]), torch.tensor([math.nan]), torch.tensor([math.inf, 2.0]))
    assert math.isnan(nan.amax)
    assert filled(torch.tensor([-math.inf]), torch.tensor([3.0])).amax == math.inf


def test_without_bins_only_the_largest_is_kept() -> None:
    magnitudes = Magnitudes()
    magnitudes.add(torch.tensor([[1.0, -4.0]]), binned=False)
    magnitudes.add(torch.tensor([2.0]), binned=False)
    assert magnitudes.amax == 4.0
    assert magnitudes.counts.sum() == 0
