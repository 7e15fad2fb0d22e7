"""An independent statement, bucket by bucket in NumPy, of what codebooks compute; tensors to try it on."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch import Tensor

from edgekd.quantization.codebook import Codebook, encode
from edgekd.quantization.levels import quantile_points


def numpy_weight(w: np.ndarray, levels: int, bucket: int | None, points: np.ndarray | None) -> np.ndarray:
    """The decoded weight by the published formula, in float32 throughout, one bucket after the other."""
    flat = w.reshape(-1)
    size = len(flat) if bucket is None else bucket
    decoded = np.empty_like(flat)
    for start in range(0, len(flat), max(size, 1)):
        part = flat[start : start + size]
        beta = part.min()
        alpha = part.max() - beta
        v = (part - beta) / (alpha if alpha else np.float32(1))
        if points is None:
            v = np.rint(v * np.float32(levels - 1)) / np.float32(levels - 1)
        else:
            v = points[[int(np.abs(points.astype(np.float64) - one).argmin()) for one in v]]
        decoded[start : start + size] = alpha * v + beta
    return decoded.reshape(w.shape)


def same_bits(first: Tensor, second: Tensor) -> bool:
    """Whether two float32 tensors have the same shape and the same bits, signs of zeros included."""
    bits = [np.ascontiguousarray(one.detach().numpy()).view(np.int32) for one in (first, second)]
    return first.shape == second.shape and np.array_equal(*bits)


_VALUES = st.floats(-(2.0**60), 2.0**60, width=32)
weights = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9), elements=_VALUES
)
"""Weights of any shape, also empty ones and scalars, of any size of value."""
buckets = st.one_of(st.none(), st.integers(1, 40))


@st.composite
def codebooks(draw: st.DrawFn) -> Codebook:
    """A codebook of a drawn tensor, uniform or with learned points of any number."""
    w = torch.from_numpy(draw(weights))
    learned = draw(st.booleans())
    levels = draw(st.integers(2, 256)) if learned else 2 ** draw(st.integers(1, 8))
    points_S = quantile_points(torch.rand(50, generator=torch.Generator().manual_seed(levels)), levels)
    return encode(w, levels=levels, bucket=draw(buckets), points_S=points_S if learned else None, name="w")
