"""The scheme of numbers: x is stored as the integer code round(x / scale), zero point 0 everywhere.

Weights: one scale per output channel. A weight of b bits has codes in [-m, m] with m = 2^(b-1) - 1:

    bits   8      7     4
    m      127    63    7      7 bits: codes that no processor's int8 kernels saturate on, stored as int8

Activations: one scale per tensor, scale = amax / 127. The codes that a graph can hold depend on its dialect:

    saturation  tensors          codes         where
    s8          all              [-128, 127]   TensorRT: int8, zero point 0
    u8          never negative   [0, 255]      ONNX Runtime, x86: uint8, zero point 0
    u8          others           [-128, 127]   ONNX Runtime, x86: uint8, zero point 128 (the same grid)

The scale is the same in both, so one training serves both; what lies beyond code 127 differs. Under u8 a bias
is rounded too, to a multiple of input scale * weight scale: ONNX Runtime keeps it as an int32 code, TensorRT
in float. Without that step, deep networks drift apart from ONNX Runtime, code by code.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Saturation = Literal["s8", "u8"]
WeightBits = Literal[4, 7, 8]

CODE_MAX = 127
"""Code of an activation's calibrated maximum."""
SMALLEST_AMAX = CODE_MAX * 2.0**-20
"""Least amax: a tensor that is always zero still needs a positive scale."""
SMALLEST_WEIGHT_SCALE = 2.0**-40
_LARGEST_BIAS_CODE = 2.0**30


def code_range(saturation: Saturation, *, non_negative: bool) -> tuple[int, int]:
    """Lowest and highest code of an activation."""
    return (0, 255) if saturation == "u8" and non_negative else (-128, 127)


def weight_code_max(bits: WeightBits) -> int:
    """Highest code m of a weight; the lowest is -m."""
    return (1 << (bits - 1)) - 1


def activation_scale(amax: Tensor) -> Tensor:
    """Scale of an activation from its largest magnitude, both scalars."""
    return amax.clamp(min=SMALLEST_AMAX) / CODE_MAX


def largest_per_output(weight_OX: Tensor) -> Tensor:
    """Largest magnitude (O,) of each output channel of a weight (O, ...), float32, without gradient."""
    return weight_OX.detach().float().abs().amax(dim=tuple(range(1, weight_OX.ndim)))


def hold_bias(scale_O: Tensor, bias_O: Tensor | None, input_amax: Tensor) -> Tensor:
    """Weight scales (O,) under which the bias fits its code.

    Runtimes store a bias as an int32 code with scale `input scale * weight scale`. A channel whose weights
    have died but whose bias lives would overflow it, so its scale is held where that code stays below 2^30;
    next to such a bias the weights' contribution is below the bias's own rounding.
    """
    if bias_O is None:
        return scale_O
    unit = activation_scale(input_amax.detach()) * _LARGEST_BIAS_CODE
    return torch.maximum(scale_O, bias_O.detach().float().abs() / unit)


def per_output(value_O: Tensor, ndim: int) -> Tensor:
    """Values (O,) in a shape that goes with weights (O, ...) of `ndim` axes."""
    return value_O.view(-1, *[1] * (ndim - 1))


def weight_codes(weight_OX: Tensor, scale_O: Tensor, bits: WeightBits = 8) -> Tensor:
    """Int8 codes of a weight (O, ...), rounded half to even and by the same steps as in training."""
    limit = weight_code_max(bits)
    inverse = per_output(scale_O.detach().reciprocal(), weight_OX.ndim)
    return torch.round(weight_OX.detach().float() * inverse).clamp(-limit, limit).to(torch.int8)
