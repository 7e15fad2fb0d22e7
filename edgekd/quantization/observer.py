"""How the largest magnitude of an activation is followed in training.

It moves slowly: amax <- amax + 0.01 (max|x| - amax), the moving average of Jacob et al., "Quantization and
Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (CVPR 2018), section 3.1.
"""

from __future__ import annotations

import torch
from torch import Tensor

EMA_STEP = 0.01
"""Share of the way that a batch moves amax."""


@torch.no_grad()
def follow(amax: Tensor, x: Tensor, *, non_negative: bool = False) -> None:
    """Move the scalar `amax` in place towards the largest magnitude of a batch x of any shape."""
    magnitude = x.detach() if non_negative else x.detach().abs()
    amax.lerp_(magnitude.amax().to(amax.dtype), EMA_STEP)
