"""The products of bytes as AVX2 makes them: pairs of them, added into 16 bits that saturate.

An x86-64 processor without VNNI multiplies unsigned by signed bytes with VPMADDUBSW. Of the neighbours 2 j
and 2 j + 1 along the summed axis K it makes u[2j] s[2j] + u[2j+1] s[2j+1], clips that to [-32768, 32767],
and only then goes on in 32 bits:

    y[m, n] = sum over j of clip(u[m, 2j] s[2j, n] + u[m, 2j+1] s[2j+1, n], -32768, 32767)

A pair reaches 2 x 255 x 127 = 64770, so two large weights of one sign that meet two large activations lose
up to half of their product. Where no neighbours of one sign add up to more than 128, no activations lose
anything: 255 x 128 = 32640.

ONNX Runtime does so where activations are uint8 and weights int8, with AVX2 as with AVX-512, but not in
depthwise convolutions, and not where both are unsigned (VPMADDWD, in 32 bits). K of a convolution runs over
the positions of the kernel and, innermost, the channels of the group. Sources: onnxruntime's core/mlas/lib,
in it platform.cpp (which kernel), x86_64/QgemmU8X8KernelAvx2.S and ConvSymKernelAvx2.S (VPMADDUBSW, K
packed in fours) and convsym.cpp, and core/providers/cpu/quantization/qlinearconv.cc (the order of K). The
tests run those kernels beside this.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

LEAST, MOST = -(2**15), 2**15 - 1
"""What a pair's sum is clipped to."""
_EXACT = 512
"""Products of bytes whose sum float32 holds exactly, in any order: 512 x 255 x 128 < 2**24."""
_CHUNK = 2**24
"""Codes that are multiplied at once, which bounds the memory."""


@dataclass(frozen=True)
class Products:
    """Sums of products (..., N) in int32, of how many pairs they are, and how many of those were clipped."""

    sums: npt.NDArray[np.int32]
    pairs: int
    saturated: int


def multiply(
    codes_MK: npt.NDArray[np.uint8],
    weights_KN: npt.NDArray[np.int8],
    *,
    zero: int = 0,
    weight_zeros: npt.ArrayLike = 0,
    saturate: bool = True,
) -> Products:
    """Sums (M, N) over K of (codes - zero) (weights - weight_zeros), with the pairs clipped as on AVX2.

    Clipping meets the codes themselves; what the zero points add is taken out later. The weights have one
    zero point, or (N,). Without `saturate` the sums are exact, as they are with VNNI.
    """
    count, depth = codes_MK.shape
    rows = max(1, _CHUNK // max(1, depth))
    sums_MN = np.zeros((count, weights_KN.shape[1]), np.int32)
    saturated = 0
    for start in range(0, count, rows):
        part = slice(start, start + rows)
        sums_MN[part] = _exact(codes_MK[part], weights_KN)
        saturated += _clip_pairs(codes_MK[part], weights_KN, sums_MN[part]) if saturate else 0
    weight_zeros = np.asarray(weight_zeros, np.int32)
    sums_MN -= zero * (weights_KN.sum(axis=0, dtype=np.int32) - depth * weight_zeros)
    if weight_zeros.any():
        sums_MN -= weight_zeros * codes_MK.sum(axis=1, dtype=np.int32)[:, None]
    return Products(sums_MN, sums_MN.size * -(-depth // 2), saturated)


def joined(parts: Sequence[Products], sums: npt.NDArray[np.int32]) -> Products:
    """Several products as one, with their sums put together by the caller."""
    return Products(sums, sum(part.pairs for part in parts), sum(part.saturated for part in parts))


def can_saturate(weights_KN: npt.NDArray[np.int8]) -> bool:
    """Whether some activations make a pair of these weights (K, N) saturate."""
    return bool(_may_clip(weights_KN, np.full(len(weights_KN), 255, np.int32)).any())


def _exact(codes_MK: npt.NDArray[np.uint8], weights_KN: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    sums_MN = np.zeros((codes_MK.shape[0], weights_KN.shape[1]), np.int32)
    for start in range(0, codes_MK.shape[1], _EXACT):
        part = slice(start, start + _EXACT)
        products = codes_MK[:, part].astype(np.float32) @ weights_KN[part].astype(np.float32)
        sums_MN += products.astype(np.int32)
    return sums_MN


def _may_clip(weights_KN: npt.NDArray[np.int8], most_K: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Pairs (K/2, N) that activations up to `most_K` can drive out of 16 bits; one alone never is."""
    even = len(weights_KN) // 2 * 2
    reach = (weights_KN[:even].astype(np.int32) * most_K[:even, None]).reshape(-1, 2, weights_KN.shape[1])
    above, below = np.maximum(reach, 0).sum(axis=1), np.minimum(reach, 0).sum(axis=1)
    return np.asarray((above > MOST) | (below < LEAST))


def _clip_pairs(
    codes_MK: npt.NDArray[np.uint8], weights_KN: npt.NDArray[np.int8], sums_MN: npt.NDArray[np.int32]
) -> int:
    """Take from exact sums what clipping takes, in place; the number of pairs that were clipped.

    Only pairs that these activations can drive out of 16 bits are computed one by one: few per cent of all.
    """
    codes_KM = np.ascontiguousarray(codes_MK.T)
    may_clip = _may_clip(weights_KN, codes_KM.max(axis=1, initial=0).astype(np.int32))
    saturated = 0
    for column in np.flatnonzero(may_clip.any(axis=0)):
        first = 2 * np.flatnonzero(may_clip[:, column])
        weights = weights_KN[:, column].astype(np.int32)[:, None]
        pairs = codes_KM[first] * weights[first] + codes_KM[first + 1] * weights[first + 1]
        excess = pairs - pairs.clip(LEAST, MOST)
        sums_MN[:, column] -= excess.sum(axis=0, dtype=np.int32)
        saturated += int(np.count_nonzero(excess))
    return saturated
