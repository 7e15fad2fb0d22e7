"""Calibrators: which magnitude an activation's codes should reach, from a histogram of its magnitudes.

The reach t is the largest magnitude that has a code: what lies beyond is clipped to it. With codes up to n
the step is t / n.

    max         t = max|x|: nothing is clipped
    percentile  the least t that at least 99.99 % of the magnitudes do not exceed
    mse         argmin_t  sum_i h_i (c_i - q_t(c_i))^2,  q_t(c) = t/n min(round(c n/t), n)
    entropy     argmin_t  KL(P_t || Q_t): P_t the bins up to t, with all beyond it in the last one; Q_t the
                bins up to t, merged into n + 1 levels, each spread evenly over its bins that are not empty

h_i counts the magnitudes around c_i, the middle of bin i. For `entropy` two bins are one, and zeros, which
have a code of their own, count as much as their neighbors: behind a ReLU they would outweigh all else.

Sources: Migacz, "8-bit Inference with TensorRT" (GTC 2017), for the entropy; Wu et al., "Integer
Quantization for Deep Learning Inference: Principles and Empirical Evaluation" (arXiv 2004.09602), section
4.3, for percentiles.
"""

from __future__ import annotations

import math
from typing import assert_never

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.quantization import Calibrator
from edgekd.quantization.histogram import Magnitudes

PERCENTILE = 0.9999
"""Share of the magnitudes that the percentile does not clip."""
_COARSE, _FINE = 128, 32
"""Reaches that `mse` tries: over the whole range first, then between the neighbors of the best."""
_ENTROPY_STEP = 16
"""Bins between two reaches that `entropy` tries."""
_MOST_CLIPPED = 0.01
"""Share of the magnitudes that `entropy` may clip. An image's background is a spike in one bin; merged with
its neighbors it outweighs all that is brighter, and the divergence is least where that is clipped."""


def reach(magnitudes: Magnitudes, calibrator: Calibrator, *, codes: int) -> float:
    """The largest magnitude that a tensor's codes should reach; 0 for a tensor of zeros.

    Args:
        magnitudes: what was observed, finite, with its histogram filled unless the calibrator is `max`.
        calibrator: how to choose.
        codes: n, the highest code: 127 or 255.
    """
    if magnitudes.amax == 0:
        return 0.0
    match calibrator:
        case "max":
            return magnitudes.amax
        case "percentile":
            return _percentile(magnitudes)
        case "mse":
            return _least_error(magnitudes, codes)
        case "entropy":
            return _least_divergence(magnitudes, codes)
        case _:
            assert_never(calibrator)


def _percentile(magnitudes: Magnitudes) -> float:
    """Nearest rank, rounded up to the end of its bin."""
    below_B = np.cumsum(magnitudes.counts)
    rank = math.ceil(PERCENTILE * int(below_B[-1]) - 1e-9)
    return min(magnitudes.amax, (int(np.searchsorted(below_B, rank)) + 1) * magnitudes.width)


def _least_error(magnitudes: Magnitudes, codes: int) -> float:
    counts_B = magnitudes.counts
    filled = np.flatnonzero(counts_B)
    centers, weights = (filled + 0.5) * magnitudes.width, counts_B[filled].astype(np.float64)

    def error(reached: float) -> float:
        step = reached / codes
        distance = centers - step * np.minimum(np.rint(centers / step), codes)
        return float(weights @ distance**2)

    step = magnitudes.amax / _COARSE
    coarse = min((step * part for part in range(1, _COARSE + 1)), key=error)
    end = min(coarse + step, magnitudes.amax)
    return min((end - (end - coarse + step) * part / _FINE for part in range(_FINE)), key=error)


def _least_divergence(magnitudes: Magnitudes, codes: int) -> float:
    counts_B = _in_pairs(magnitudes.counts).astype(np.float64)
    counts_B[0] = counts_B[1] if len(counts_B) > 1 else counts_B[0]
    least = np.searchsorted(np.cumsum(counts_B), (1 - _MOST_CLIPPED) * counts_B.sum()) + 1
    tried = np.append(np.arange(max(least, codes + 1), len(counts_B), _ENTROPY_STEP), len(counts_B))
    best = tried[np.argmin([_divergence(counts_B, bins, codes + 1) for bins in tried])]
    return min(magnitudes.amax, float(best) * 2 * magnitudes.width)


def _in_pairs(counts_B: NDArray[np.int64]) -> NDArray[np.int64]:
    even_B = np.append(counts_B, 0)[: len(counts_B) + len(counts_B) % 2]
    pairs: NDArray[np.int64] = even_B.reshape(-1, 2).sum(axis=1)
    return pairs


def _divergence(counts_B: NDArray[np.float64], bins: int, levels: int) -> float:
    """KL(P || Q) in nats when only the first `bins` have codes, in so many levels."""
    inside = counts_B[:bins]
    clipped = inside.copy()
    clipped[-1] += counts_B[bins:].sum()
    starts = np.arange(levels) * bins // levels
    filled = (inside > 0).astype(np.float64)
    sizes = np.diff(np.append(starts, bins))
    means = np.add.reduceat(inside, starts) / np.maximum(np.add.reduceat(filled, starts), 1)
    merged = np.repeat(means, sizes) * filled
    seen = clipped > 0
    if not merged[seen].all():
        return math.inf  # all that is left of the last level was clipped into it
    p, q = clipped[seen] / clipped.sum(), merged[seen] / merged.sum()
    return float(np.sum(p * np.log(p / q)))
