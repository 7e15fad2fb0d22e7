"""Mean and standard deviation of each channel, in the units of the raw data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_EXAMPLES_AT_ONCE = 1024  # a float64 copy of all of CIFAR would take 1.2 GB
_CONSTANT = 1e-9  # of the mean: what rounding leaves of the spread of a constant channel


def channel_mean_std(x: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Examples (N, C, ...) -> mean (C,) and population standard deviation (C,), computed in float64.

    The standard deviation of a constant channel is given as 1, so that normalization only shifts it.
    """
    values_per_channel = x.size // x.shape[1]
    mean_C = _channel_sums(x, np.zeros(x.shape[1]), power=1) / values_per_channel
    std_C = np.sqrt(_channel_sums(x, mean_C, power=2) / values_per_channel)
    return mean_C, np.where(std_C > _CONSTANT * np.abs(mean_C), std_C, 1.0)


def _channel_sums(x: NDArray[Any], center_C: NDArray[np.float64], power: int) -> NDArray[np.float64]:
    total_C = np.zeros(x.shape[1])
    for start in range(0, len(x), _EXAMPLES_AT_ONCE):
        part = x[start : start + _EXAMPLES_AT_ONCE].astype(np.float64)
        part_NCX = part.reshape(*part.shape[:2], -1)
        total_C += ((part_NCX - center_C[:, np.newaxis]) ** power).sum(axis=(0, 2))
    return total_C
