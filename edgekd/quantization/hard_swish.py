"""HardSwish in int8: y = x * gate(x) with gate(x) = clip(x + 3, 0, 6) / 6.

HardSwish: Howard et al., "Searching for MobileNetV3" (ICCV 2019). ONNX Runtime has int8 kernels for the
addition of 3 and for the product, and where the codes 0 to 255 of the sum stand for 0 to 6 they saturate as
it clips (see conversion/hard_swish.py). So in that artefact the gate is rounded to 255 steps, and here it
is too under its saturation (u8). TensorRT computes all of it in float.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.quantization.grid import round_to_grid
from edgekd.quantization.scheme import Saturation

_STEPS = 255
_REACH = 6.0


class Int8HardSwish(nn.Module):
    """HardSwish whose gate lies on a grid where the artefact's does; x is quantized, y is quantized next."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.moving = False
        self.quantizing = False
        self.saturation: Saturation = "s8"
        self.register_buffer("scale", torch.tensor(_REACH / _STEPS), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """HardSwish of x, any shape."""
        if not self.quantizing or self.saturation == "s8":
            return x * F.hardsigmoid(x)
        return x * (round_to_grid(x + _REACH / 2, self.scale, 0, _STEPS) / _REACH)
