"""How the largest magnitude of an activation is followed.

Calibration keeps the maximum over all batches: amax <- max(amax, max|x|).
Training moves it slowly: amax <- amax + 0.01 (max|x| - amax), the moving average of Jacob et al.,
"Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference" (CVPR 2018),
section 3.1.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Watching = Literal["off", "calibrating", "following"]

EMA_STEP = 0.01
"""Share of the way that a batch moves amax in training."""


def observe(amax: Tensor, x: Tensor, watching: Watching) -> None:
    """Update the scalar `amax` in place with a batch x of any shape; a NaN in x makes it NaN."""
    if watching == "off":
        return
    batch_amax = x.detach().abs().amax().to(amax.dtype)
    if watching == "calibrating":
        amax.copy_(torch.maximum(amax, batch_amax))
    else:
        amax.lerp_(batch_amax, EMA_STEP)
