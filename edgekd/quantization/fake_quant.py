"""Fake quantization: round to the int8 grid in float, with a straight-through gradient inside the clamp.

Always in float32, also under bf16 autocast: bfloat16 cannot hold 256 codes. What comes in as bfloat16 goes
out as bfloat16. The gradient is 1 where the code is within its range and 0 where it was clamped.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.quantization.observer import Watching, observe
from edgekd.quantization.scheme import CODE_MAX, Saturation, activation_scale, code_range, weight_scale


class ActivationQuantizer(nn.Module):
    """The one quantizer of a tensor: every consumer reads its output.

    `label` names the tensor for people; `non_negative` says that its producer never yields less than zero.
    """

    amax: Tensor
    zero_point: Tensor

    def __init__(self, label: str, *, non_negative: bool) -> None:
        super().__init__()
        self.label = label
        self.non_negative = non_negative
        self.watching: Watching = "off"
        self.quantizing = False
        self.saturation: Saturation = "s8"
        self.register_buffer("amax", torch.zeros(()))
        self.register_buffer("zero_point", torch.zeros((), dtype=torch.int32), persistent=False)

    @property
    def calibrated(self) -> bool:
        """Whether amax was set."""
        return bool(self.amax > 0)

    def forward(self, x: Tensor, repeated: bool = False) -> Tensor:
        """Quantize x of any shape when that is on, as it is otherwise.

        `repeated`: x was read off this quantizer's output through pooling or reshaping, so it lies on the
        grid already; the call only marks where an exported graph says so again.
        """
        if repeated:
            return x
        if self.watching == "calibrating" or (self.watching == "following" and self.training):
            observe(self.amax, x, self.watching)
        if not self.quantizing:
            return x
        low, high = code_range(self.saturation, non_negative=self.non_negative)
        scale = activation_scale(self.amax)
        rounded = torch.fake_quantize_per_tensor_affine(x.float(), scale, self.zero_point, low, high)
        return rounded.to(dtype=x.dtype)

    def extra_repr(self) -> str:
        """What the module's repr shows."""
        return f"{self.label}, non_negative={self.non_negative}"


WeightedOp = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear


def apply_op(op: WeightedOp, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What `op` computes of x with this weight and bias in place of its own."""
    if isinstance(op, nn.Linear):
        return nn.functional.linear(x, weight, bias)
    y: Tensor = op._conv_forward(x, weight, bias)
    return y


class WeightQuantizer(nn.Module):
    """A convolution or linear map whose weight is quantized per output channel, afresh in every forward."""

    zero_point_O: Tensor

    def __init__(self, op: WeightedOp) -> None:
        super().__init__()
        self.op = op
        self.quantizing = False
        self.saturation: Saturation = "s8"
        zeros = torch.zeros(op.weight.shape[0], dtype=torch.int32)
        self.register_buffer("zero_point_O", zeros, persistent=False)

    def weight_scale(self, input_amax: Tensor) -> Tensor:
        """Scale of every output channel, for an input that is quantized with this amax."""
        return weight_scale(self.op.weight, self.op.bias, input_amax)

    def forward(self, x: Tensor, input_amax: Tensor) -> Tensor:
        """The op on x with its rounded weight; `input_amax` is the amax of x's quantizer."""
        bias = self.op.bias
        if not self.quantizing:
            return apply_op(self.op, x, self.op.weight, bias)
        scale_O = self.weight_scale(input_amax)
        weight = torch.fake_quantize_per_channel_affine(
            self.op.weight.float(), scale_O, self.zero_point_O, 0, -CODE_MAX, CODE_MAX
        )
        if bias is not None and self.saturation == "u8" and self._has_int32_bias(x):
            bias = _round_through(bias.float(), activation_scale(input_amax) * scale_O)
        return apply_op(self.op, x, weight, bias)

    def _has_int32_bias(self, x: Tensor) -> bool:
        """Convolutions and Gemm; a linear map of more axes becomes a MatMul and a float addition."""
        return not isinstance(self.op, nn.Linear) or x.ndim == 2


def _round_through(x: Tensor, scale: Tensor) -> Tensor:
    """The nearest multiple of `scale`, with the gradient of x."""
    return x + (torch.round(x.detach() / scale) * scale - x.detach())
