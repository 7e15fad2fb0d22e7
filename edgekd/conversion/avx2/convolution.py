"""A convolution of codes as ONNX Runtime does it: each window of the picture is a row of a matrix product.

Pictures are NHWC here, with any number of spatial axes S. So K runs over the positions of the kernel and,
innermost, the channels of a group. The border is filled with the code of zero. Source: onnxruntime's
core/providers/cpu/quantization/qlinearconv.cc.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from edgekd.conversion.avx2.products import Products, can_saturate, joined, multiply

Array = npt.NDArray[Any]
_CHUNK = 2**26
"""Codes in the windows of all pictures that are convolved at once, which bounds the memory."""


def convolve(
    x_NSC: Array, w: Array, zero: int, w_zeros: Array, attributes: Mapping[str, Any], *, saturate: bool
) -> Products:
    """Sums (N, *out, channels) of a convolution of uint8 pictures with int8 filters.

    Args:
        x_NSC: the pictures' codes, channels last.
        w: the filters' codes (channels, C / groups, *kernel).
        zero: the pictures' zero point.
        w_zeros: the filters' zero point, one or (channels,).
        attributes: those of ONNX's Conv.
        saturate: clip pairs of products, unless the convolution is depthwise.
    """
    groups = attributes.get("group", 1)
    saturate = saturate and not _is_depthwise(w, groups)
    zeros = np.split(np.broadcast_to(w_zeros, len(w)), groups)
    parts, pictures = [], []
    for windows in _windows(x_NSC, w.shape[2:], zero, attributes):
        products = [
            multiply(_rows(codes), _matrix(filters), zero=zero, weight_zeros=one, saturate=saturate)
            for codes, filters, one in zip(
                np.split(windows, groups, axis=-1), np.split(w, groups), zeros, strict=True
            )
        ]
        out = windows.shape[: x_NSC.ndim - 1]
        pictures.append(np.concatenate([one.sums for one in products], axis=1).reshape(*out, len(w)))
        parts += products
    return joined(parts, np.concatenate(pictures))


def filters_can_saturate(w: Array, groups: int) -> bool:
    """Whether some pictures make a convolution with int8 filters (channels, C / groups, *kernel) saturate."""
    return not _is_depthwise(w, groups) and can_saturate(_matrix(w))


def _is_depthwise(w: Array, groups: int) -> bool:
    """One channel in and one out for each group: done by kernels of their own, with exact products."""
    return bool(w.shape[1] == 1 and len(w) == groups)


def _matrix(filters: Array) -> Array:
    """Filters (N, C, *kernel) as (K, N)."""
    return np.moveaxis(filters, 1, -1).reshape(len(filters), -1).T


def _rows(windows: Array) -> Array:
    """Windows (..., *kernel, C) of a picture as (M, K)."""
    axes = windows.ndim - 2
    out, kernel = windows.shape[: axes // 2 + 1], windows.shape[axes // 2 + 1 :]
    return windows.reshape(int(np.prod(out)), int(np.prod(kernel)))


def _windows(
    x_NSC: Array, kernel: tuple[int, ...], zero: int, attributes: Mapping[str, Any]
) -> Iterator[Array]:
    """Windows (n, *out, *kernel, C) of the pictures, a few pictures at once."""
    axes = range(1, len(kernel) + 1)
    strides = attributes.get("strides") or [1] * len(kernel)
    dilations = attributes.get("dilations") or [1] * len(kernel)
    extents = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    pads = _pads(x_NSC.shape[1:-1], extents, strides, attributes)
    padded = np.pad(x_NSC, [(0, 0), *pads, (0, 0)], constant_values=zero)
    every = sliding_window_view(padded, extents, axis=tuple(axes))
    chosen = [slice(None, None, step) for step in strides]
    inside = [slice(None, None, step) for step in dilations]
    windows = np.moveaxis(every[(slice(None), *chosen, slice(None), *inside)], len(kernel) + 1, -1)
    few = max(1, _CHUNK // max(1, windows[:1].size))
    return (windows[start : start + few] for start in range(0, len(windows), few))


def _pads(
    sizes: tuple[int, ...], extents: list[int], strides: list[int], attributes: Mapping[str, Any]
) -> list[tuple[int, int]]:
    """Border before and after on each spatial axis."""
    match attributes.get("auto_pad", b"NOTSET"):
        case b"NOTSET":
            pads = attributes.get("pads") or [0] * 2 * len(sizes)
            return list(zip(pads[: len(sizes)], pads[len(sizes) :], strict=True))
        case b"VALID":
            return [(0, 0)] * len(sizes)
        case mode:
            wanted = [
                max((-(-size // stride) - 1) * stride + extent - size, 0)
                for size, extent, stride in zip(sizes, extents, strides, strict=True)
            ]
            halves = [(total // 2, total - total // 2) for total in wanted]
            return halves if mode == b"SAME_UPPER" else [pair[::-1] for pair in halves]
