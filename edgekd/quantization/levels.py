"""How many points each tensor gets, and where they start.

Points start at the quantiles of the scaled weights, so that each begins with as many weights as the next.
The number is the same for every tensor, or follows the gradient: half of the points are each tensor's own,
and the other half is shared out in proportion to the norm of the loss's gradient with respect to the tensor.
Source: Polino, Pascanu, Alistarh, "Model compression via distillation and quantization", ICLR 2018, and its
authors' code. Departure: what rounding leaves over goes to the largest remainders, not to one tensor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from edgekd.quantization.codebook import MAX_LEVELS


def quantile_points(values: Tensor, levels: int) -> Tensor:
    """The 0, 1 / (S - 1), ..., 1 quantiles of a tensor's values, (S,), float32, ascending.

    Between two values they are interpolated linearly. Without values the points are uniform.
    """
    shares_S = np.linspace(0, 1, levels)
    if values.numel() == 0:
        return torch.from_numpy(shares_S).float()
    points_S = np.quantile(values.detach().cpu().numpy().astype(np.float64), shares_S)
    return torch.from_numpy(points_S).float()


def share_out_levels(norms: Sequence[float], levels: int) -> tuple[int, ...]:
    """Points for each tensor: `levels` of them on average, at least half as many, at most 256.

    Args:
        norms: gradient norm of each tensor, not negative; all zero shares out evenly.
        levels: points of a tensor on average.
    """
    least = max(2, levels // 2)
    room = len(norms) * levels - len(norms) * least
    total = sum(norms)
    shares = [room * norm / total if total > 0 else room / len(norms) for norm in norms]
    given = [min(math.floor(share), MAX_LEVELS - least) for share in shares]
    order = sorted(range(len(norms)), key=lambda index: (given[index] - shares[index], index))
    while sum(given) < room:
        index = next(index for index in order if least + given[index] < MAX_LEVELS)
        given[index] += 1
        order.remove(index)
        order.append(index)
    return tuple(least + extra for extra in given)
