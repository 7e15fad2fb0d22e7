"""Fake quantizers: they round what passes through them to its grid, in float, while a network learns.

A scale either follows what it scales, or is learned (LSQ, see grid.py):

                  followed                                      learned
    activations   amax: moving average of the largest           amax is a parameter, and starts as calibrated
                  magnitude of a batch
    weights       from the present weight's largest magnitude,  scale_O is a parameter, and starts as that
                  for 4 bits from a part of it (clip.py)

What learns of an activation is amax = 127 scale. Its gradient is 127^2 times that which the chain rule gives,
so that SGD moves the scale as it would if the scale were the parameter.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from edgekd.quantization.batch_norm import BatchNorm, WeightedOp, affine_of, unscale
from edgekd.quantization.clip import best_fractions
from edgekd.quantization.fold import fold_back
from edgekd.quantization.grid import at_least, learn_grid, round_to_grid
from edgekd.quantization.observer import follow
from edgekd.quantization.scheme import (
    CODE_MAX,
    SMALLEST_AMAX,
    SMALLEST_WEIGHT_SCALE,
    Saturation,
    WeightBits,
    activation_scale,
    code_range,
    hold_bias,
    largest_per_output,
    per_output,
    weight_code_max,
    weight_codes,
)

_FEW_BITS = 4
"""Bits up to which clipping the largest weights pays."""


class ActivationQuantizer(nn.Module):
    """The one quantizer of a tensor: every consumer reads its output.

    `label` names the tensor for people; `non_negative` says that its producer never yields less than zero.
    """

    amax: Tensor

    def __init__(self, label: str, *, non_negative: bool, learned: bool = False) -> None:
        super().__init__()
        self.label = label
        self.non_negative = non_negative
        self.learned = learned
        self.moving = False
        self.quantizing = False
        self.saturation: Saturation = "s8"
        if learned:
            self.amax = nn.Parameter(torch.zeros(()))
        else:
            self.register_buffer("amax", torch.zeros(()))

    @property
    def calibrated(self) -> bool:
        """Whether amax was set."""
        return bool(self.amax != 0)

    def forward(self, x: Tensor, repeated: bool = False) -> Tensor:
        """Quantize x of any shape when that is on, as it is otherwise.

        `repeated`: x was read off this quantizer's output through pooling or reshaping, so it lies on the
        grid already; the call only marks where an exported graph says so again.
        """
        if repeated:
            return x
        moving = self.moving and self.training
        if moving and not self.learned:
            follow(self.amax, x, non_negative=self.non_negative)
        if not self.quantizing:
            return x
        low, high = code_range(self.saturation, non_negative=self.non_negative)
        if moving and self.learned:
            factor = CODE_MAX**2 / math.sqrt(x[0].numel() * high)
            return learn_grid(x, at_least(self.amax, SMALLEST_AMAX) / CODE_MAX, low, high, factor=factor)
        return round_to_grid(x, activation_scale(self.amax), low, high)

    def extra_repr(self) -> str:
        """What the module's repr shows."""
        return f"{self.label}, non_negative={self.non_negative}, learned={self.learned}"


def apply_op(op: WeightedOp, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `op` computes of x with this weight and bias in place of its own."""
    if isinstance(op, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    y: Tensor = op._conv_forward(x, weight, bias)
    return y


class WeightQuantizer(nn.Module):
    """A convolution or linear map whose weight is quantized per output channel, afresh in every forward.

    With a `norm` it is also the batch norm behind it, which learns on (see batch_norm.py).
    """

    norm: BatchNorm | None
    scale_O: Tensor | None
    fraction_O: Tensor | None

    def __init__(self, op: WeightedOp, *, bits: WeightBits = 8, learned: bool = False) -> None:
        super().__init__()
        self.op = op
        self.register_module("norm", None)
        self.normalizing = False
        self.bits = bits
        self.moving = False
        self.quantizing = False
        self.saturation: Saturation = "s8"
        few = bits <= _FEW_BITS
        fraction_O = best_fractions(op.weight, weight_code_max(bits)) if few else None
        self.register_buffer("fraction_O", None if learned else fraction_O)
        start_O = _followed_scale(op.weight, bits, fraction_O)
        self.register_parameter("scale_O", nn.Parameter(start_O) if learned else None)

    def shipped(self) -> tuple[Tensor, Tensor | None]:
        """The weight (O, ...) and bias (O,) that go into an exported graph, the weight not yet rounded."""
        if self.norm is None:
            return self.op.weight, self.op.bias
        return fold_back(self.op.weight, self.op.bias, affine_of(self.norm))

    def weight_scale(self, input_amax: Tensor) -> Tensor:
        """Scale (O,) of every output channel, for an input that is quantized with this amax."""
        return self._scale(*self.shipped(), input_amax).detach()

    def codes(self, input_amax: Tensor) -> Tensor:
        """Int8 codes of the weight, for an input that is quantized with this amax."""
        return weight_codes(self.shipped()[0], self.weight_scale(input_amax), self.bits)

    def forward(self, x: Tensor, input_amax: Tensor) -> Tensor:
        """The op on x with its rounded weight; `input_amax` is the amax of x's quantizer."""
        weight, bias = self.shipped()
        if self.quantizing:
            scale_O = self._scale(weight, bias, input_amax)
            weight = self._rounded(weight, scale_O)
            bias = self._rounded_bias(bias, scale_O, input_amax, x)
        if self.norm is not None and self.normalizing and self.training:
            normalized: Tensor = self.norm(apply_op(self.op, x, unscale(weight, self.norm), self.op.bias))
            return normalized
        return apply_op(self.op, x, weight, bias)

    def _scale(self, weight: Tensor, bias: Tensor | None, input_amax: Tensor) -> Tensor:
        if self.scale_O is None:
            scale_O = _followed_scale(weight, self.bits, self.fraction_O)
        else:
            scale_O = at_least(self.scale_O, SMALLEST_WEIGHT_SCALE)
        return hold_bias(scale_O, bias, input_amax)

    def _rounded(self, weight: Tensor, scale_O: Tensor) -> Tensor:
        limit, scale = weight_code_max(self.bits), per_output(scale_O, weight.ndim)
        if self.scale_O is None or not (self.moving and self.training):
            return round_to_grid(weight, scale, -limit, limit)
        factor = 1 / math.sqrt(weight[0].numel() * limit)
        return learn_grid(weight, scale, -limit, limit, factor=factor)

    def _rounded_bias(
        self, bias: Tensor | None, scale_O: Tensor, input_amax: Tensor, x: Tensor
    ) -> Tensor | None:
        """The bias at the scale of the int32 accumulator, where the shipped graph keeps it so."""
        if bias is None or self.saturation != "u8" or not self._has_int32_bias(x):
            return bias
        return _round_through(bias.float(), activation_scale(input_amax.detach()) * scale_O.detach())

    def _has_int32_bias(self, x: Tensor) -> bool:
        """Convolutions and Gemm; a linear map of more axes becomes a MatMul and a float addition."""
        return not isinstance(self.op, nn.Linear) or x.ndim == 2


def _followed_scale(weight: Tensor, bits: WeightBits, fraction_O: Tensor | None) -> Tensor:
    largest_O = largest_per_output(weight)
    if fraction_O is not None:
        largest_O = largest_O * fraction_O
    return (largest_O / weight_code_max(bits)).clamp(min=SMALLEST_WEIGHT_SCALE)


def _round_through(x: Tensor, scale: Tensor) -> Tensor:
    """The nearest multiple of `scale`, with the gradient of x."""
    return x + (torch.round(x.detach() / scale) * scale - x.detach())
