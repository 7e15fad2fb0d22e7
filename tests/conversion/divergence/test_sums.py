from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.conversion.divergence.grid import Grid
from edgekd.conversion.divergence.probe import like
from edgekd.conversion.divergence.sums import Difference, Extent, decibels
from edgekd.runtimes.onnxruntime import open_session
from tests.conversion.graphs import Writer


def test_a_difference_by_its_formulas_batch_by_batch() -> None:
    random = np.random.default_rng(0)
    one, other = random.normal(size=(7, 5)).astype(np.float32), random.normal(size=(7, 5)).astype(np.float32)
    sums = Difference()
    for rows in (slice(0, 3), slice(3, 7)):
        sums.add(one[rows], other[rows])
    error = (one.astype(np.float64) - other) ** 2
    assert sums.sqnr_db == pytest.approx(10 * np.log10((one.astype(np.float64) ** 2).sum() / error.sum()))
    assert sums.mean(sums.error) == pytest.approx(error.mean())
    assert sums.mean(sums.total) == pytest.approx(np.abs(one - other).mean())
    assert sums.most == pytest.approx(np.abs(one - other).max())
    expected = (one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)
    assert sums.cosine == pytest.approx(expected, rel=1e-5)


def test_no_difference_and_no_number() -> None:
    x = np.ones(4, np.float32)
    same, broken = Difference(), Difference()
    same.add(x, x)
    broken.add(x, np.array([1, np.nan, 1, 1], np.float32))
    assert (same.sqnr_db, same.is_finite) == (None, True)
    assert (broken.sqnr_db, broken.is_finite) == (-140, False)
    assert decibels(0, 1) == -140
    assert decibels(0, 0) is None
    assert Difference().mean(3.0) == 0


@settings(deadline=None, max_examples=30, derandomize=True)
@given(
    dtype=st.sampled_from(["int8", "uint8", "int16", "uint16"]),
    zero=st.integers(0, 255),
    scale=st.sampled_from([0.05, 0.3, 2.0]),
)
def test_a_grid_does_what_onnx_runtime_does(dtype: str, zero: int, scale: float) -> None:
    zero = zero - 128 if dtype == "int8" else zero
    write = Writer()
    names = write.constant("s", np.float32(scale)), write.constant("z", np.array(zero, dtype))
    model = write.graph(write.quantize("input", *names), shape=(50,))
    x = np.random.default_rng(1).normal(scale=30 * scale, size=(4, 50)).astype(np.float32)
    x[0, :3] = [0.5 * scale, 1.5 * scale, -2.5 * scale]  # half way between two codes: to the even one
    grid = Grid(float(np.float32(scale)), zero, dtype)
    (expected,) = open_session(model, as_written=True).run(None, {"input": x})
    np.testing.assert_allclose(grid.apply(x), expected, rtol=1e-6, atol=1e-7)
    low, high = grid.limits
    assert expected.min() >= low - 1e-4
    assert expected.max() <= high + 1e-4


@pytest.mark.parametrize(
    ("dtype", "zero", "half", "symmetric", "starts"),
    [
        ("int8", 0, 127, True, False),
        ("int8", -128, 127, True, True),
        ("int8", 5, 127, False, False),
        ("uint8", 0, 127, True, True),
        ("uint8", 128, 127, True, False),
        ("uint8", 127, 127, False, False),
        ("uint4", 8, 7, True, False),
        ("int16", 0, 32767, True, False),
    ],
)
def test_what_a_zero_point_means(dtype: str, zero: int, half: int, symmetric: bool, starts: bool) -> None:
    grid = Grid(0.1, zero, dtype)
    assert (grid.half, grid.is_symmetric, grid.starts_at_zero) == (half, symmetric, starts)


def test_what_a_grid_cuts_off_is_counted() -> None:
    grid, extent = Grid(1.0, 0, "int8"), Extent()
    x = np.array([-200, -128.4, 0.4, 127.4, 128.0, 130.0], np.float32)
    extent.add(x, grid.apply(x), grid.limits, grid.scale)
    assert (extent.at_low, extent.at_high) == (1, 2)
    assert extent.saturated == 0.5
    assert extent.amax == 200
    assert extent.error == pytest.approx(72**2 + 0.4**2 * 3 + 1 + 3**2, rel=1e-4)
    positive = Extent()
    positive.add(np.array([2.0, 3.0], np.float32), np.array([2.0, 3.0]), grid.limits, 1.0)
    assert (positive.least, positive.most) == (0, 3)


def test_channels_that_fill_up_are_cut_off_or_zero() -> None:
    x = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    assert np.array_equal(like(x, np.empty((2, 2, 4))), x[:, :2])
    more = like(x, np.empty((2, 5, 4)))
    assert np.array_equal(more[:, :3], x)
    assert not more[:, 3:].any()
    assert like(x, np.empty((6, 4))).shape == (6, 4)
