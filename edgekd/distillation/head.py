"""Heads: small networks of a term, trained along with the student and left behind when it ships."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from edgekd.distillation.logits import widen

_HALF = (torch.bfloat16, torch.float16)


class Head(nn.Sequential):
    """Layers that compute in the arithmetic in which their input arrives, and answer in fp32 or wider."""

    def forward(self, x_BC: Tensor) -> Tensor:
        """Features of a network, in its precision -> float32 or float64."""
        half = x_BC.dtype if x_BC.dtype in _HALF else torch.bfloat16
        with torch.autocast(x_BC.device.type, dtype=half, enabled=x_BC.dtype in _HALF):
            answer: Tensor = super().forward(x_BC)  # type: ignore[no-untyped-call]
        return widen(answer)
