"""The int8 scheme: x is stored as the integer code round(x / scale), zero point 0 everywhere.

Weights: one scale per output channel, scale = max|w| / 127, codes in [-127, 127].
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

CODE_MAX = 127
"""Code of the calibrated maximum."""
SMALLEST_AMAX = CODE_MAX * 2.0**-20
"""Least amax: a tensor that is always zero still needs a positive scale."""
_LARGEST_BIAS_CODE = 2.0**30
_SMALLEST_WEIGHT_SCALE = 2.0**-40


def code_range(saturation: Saturation, *, non_negative: bool) -> tuple[int, int]:
    """Lowest and highest code of an activation."""
    return (0, 255) if saturation == "u8" and non_negative else (-128, 127)


def activation_scale(amax: Tensor) -> Tensor:
    """Scale of an activation from its largest magnitude, both scalars."""
    return amax.clamp(min=SMALLEST_AMAX) / CODE_MAX


def weight_scale(weight_OX: Tensor, bias_O: Tensor | None, input_amax: Tensor) -> Tensor:
    """Scale per output channel (O,) of a weight (O, ...), float32.

    Runtimes store a bias as an int32 code with scale `input scale * weight scale`. A channel whose weights
    have died but whose bias lives would overflow it, so its scale is held where that code stays below 2^30;
    next to such a bias the weights' contribution is below the bias's own rounding.
    """
    absmax_O = weight_OX.detach().float().abs().amax(dim=tuple(range(1, weight_OX.ndim)))
    scale_O = (absmax_O / CODE_MAX).clamp(min=_SMALLEST_WEIGHT_SCALE)
    if bias_O is None:
        return scale_O
    floor_O = bias_O.detach().float().abs() / (activation_scale(input_amax) * _LARGEST_BIAS_CODE)
    return torch.maximum(scale_O, floor_O)


def weight_codes(weight_OX: Tensor, scale_O: Tensor) -> Tensor:
    """Int8 codes of a weight (O, ...), round half to even as the fake quantizer and ONNX do."""
    per_output = scale_O.view(-1, *[1] * (weight_OX.ndim - 1))
    codes = torch.round(weight_OX.detach().float() / per_output)
    return codes.clamp(-CODE_MAX, CODE_MAX).to(torch.int8)
