"""Where to clip weights of few bits: the scale with the least squared error, one per output channel.

With 15 codes the largest weight of a channel is a poor guide: a step that fits it leaves most weights on two
or three codes. The candidates are fractions of the largest magnitude, from 1 down to 0.3 in steps of 0.01;
the best of them is kept as that fraction, so that a scale can go on following its channel.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edgekd.quantization.grid import round_to_grid
from edgekd.quantization.scheme import SMALLEST_WEIGHT_SCALE, largest_per_output, per_output

_FRACTIONS = tuple(percent / 100 for percent in range(100, 29, -1))


@torch.no_grad()
def best_fractions(weight_OX: Tensor, code_max: int) -> Tensor:
    """Fraction (O,) of each output channel's largest magnitude that gets the highest code.

    Args:
        weight_OX: (O, ...), finite.
        code_max: highest code m; the lowest is -m.
    """
    weight_OX = weight_OX.detach().float()
    absmax_O = largest_per_output(weight_OX)
    best_O, least_O = torch.ones_like(absmax_O), torch.full_like(absmax_O, torch.inf)
    for fraction in _FRACTIONS:
        scale_O = (fraction * absmax_O / code_max).clamp(min=SMALLEST_WEIGHT_SCALE)
        rounded_OX = round_to_grid(weight_OX, per_output(scale_O, weight_OX.ndim), -code_max, code_max)
        error_O = (rounded_OX - weight_OX).square().flatten(1).sum(1)
        better_O = error_O < least_O
        best_O = torch.where(better_O, torch.full_like(best_O, fraction), best_O)
        least_O = torch.where(better_O, error_O, least_O)
    return best_O
