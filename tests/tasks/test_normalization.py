"""Mean and standard deviation against NumPy's own, in float64."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.normalization import channel_mean_std


@pytest.mark.parametrize("shape", [(7, 3), (7, 3, 5), (7, 2, 4, 5), (3, 2, 3, 4, 5), (2500, 2, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_is_the_mean_and_spread_of_each_channel(shape, dtype):
    x = (np.random.default_rng(0).random(shape) * 255).astype(dtype)
    mean_C, std_C = channel_mean_std(x)
    axes = tuple(axis for axis in range(len(shape)) if axis != 1)
    assert mean_C == pytest.approx(x.astype(np.float64).mean(axis=axes), rel=1e-12)
    assert std_C == pytest.approx(x.astype(np.float64).std(axis=axes), rel=1e-12)


def test_a_small_spread_far_from_zero_is_not_lost():
    x = (1e4 + np.random.default_rng(0).normal(0, 0.01, (4000, 1))).astype(np.float32)
    assert channel_mean_std(x)[1] == pytest.approx(x.astype(np.float64).std(), rel=1e-9)


@pytest.mark.parametrize("value", [0, 0.1, -1e6])
def test_a_constant_channel_has_spread_one(value):
    x = np.full((3000, 2, 3), value, dtype=np.float32)
    x[:, 1, 0] = 7
    x[::2, 1, 1] = 8
    mean_C, std_C = channel_mean_std(x)
    assert mean_C[0] == pytest.approx(np.float32(value), rel=1e-12)
    assert std_C[0] == 1
    assert std_C[1] != 1
