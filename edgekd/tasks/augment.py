"""Random changes of a training batch: crop, flip, rotate, noise, in this order.

All examples of the batch at once, on its device; each gets its own crop, flip, angle and noise.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.documents.recipe import Augmentation


def augment(
    x_BCX: Tensor,
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    background_C: Tensor | None = None,
) -> Tensor:
    """Change each example of a normalized batch at random.

    Args:
        x_BCX: float batch (B, C, H, W); (B, C, L) and (B, C, D, H, W) take crop and noise, (B, C) noise.
        augmentation: what to do; the task has checked that it fits the layout.
        generator: of every random choice; on the CPU or on the device of the batch.
        background_C: what lies outside of an example, (C,), normalized; zeros when not given.

    Returns:
        A batch of the same shape, dtype and device; the given batch is not changed.
    """
    moved = augmentation.crop or augmentation.rotate_degrees
    if moved and background_C is not None:
        per_channel = (-1, *[1] * (x_BCX.ndim - 2))
        background = background_C.to(x_BCX).view(per_channel)
        return _noise(
            _move(x_BCX - background, augmentation, generator) + background, augmentation, generator
        )
    return _noise(_move(x_BCX, augmentation, generator), augmentation, generator)


def _move(x_BCX: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Crop, flip and rotate, with zeros outside."""
    if augmentation.crop:
        for axis in range(2, x_BCX.ndim):
            x_BCX = _shift(x_BCX, axis, augmentation.crop, generator)
    if augmentation.flip:
        x_BCX = mirror(x_BCX, generator)
    if augmentation.rotate_degrees:
        x_BCX = _rotate(x_BCX, augmentation.rotate_degrees, generator)
    return x_BCX


def _shift(x_BCX: Tensor, axis: int, most: int, generator: torch.Generator) -> Tensor:
    """Shift along one axis by -most .. most: a random crop of the padded example, axis by axis."""
    size = x_BCX.shape[axis]
    shape = [1] * x_BCX.ndim
    shape[0], shape[axis] = len(x_BCX), size
    shift_B1 = torch.randint(-most, most + 1, (len(x_BCX), 1), generator=generator, device=generator.device)
    source = (torch.arange(size, device=x_BCX.device) + shift_B1.to(x_BCX.device)).view(shape)
    inside = (source >= 0) & (source < size)
    return x_BCX.gather(axis, source.clamp(0, size - 1).expand_as(x_BCX)) * inside


def mirror(x_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image left to right with probability 1/2."""
    mirrored_B = torch.rand(len(x_BCHW), generator=generator, device=generator.device) < 0.5
    return torch.where(mirrored_B.to(x_BCHW.device).view(-1, 1, 1, 1), x_BCHW.flip(-1), x_BCHW)


def _rotate(x_BCHW: Tensor, most_degrees: float, generator: torch.Generator) -> Tensor:
    """Turn each image about its center by a uniform angle of at most `most_degrees`, bilinear."""
    turn_B = torch.rand(len(x_BCHW), generator=generator, device=generator.device)
    angle_B = ((2 * turn_B - 1) * math.radians(most_degrees)).to(x_BCHW)
    height, width = x_BCHW.shape[-2:]
    cos_B, sin_B, zero_B = angle_B.cos(), angle_B.sin(), torch.zeros_like(angle_B)
    # affine_grid counts each axis from -1 to 1: the ratio keeps a turn a turn where H and W differ.
    row_x = torch.stack([cos_B, -sin_B * height / width, zero_B], dim=1)
    row_y = torch.stack([sin_B * width / height, cos_B, zero_B], dim=1)
    grid = F.affine_grid(torch.stack([row_x, row_y], dim=1), list(x_BCHW.shape), align_corners=False)
    return F.grid_sample(x_BCHW, grid, align_corners=False)


def _noise(x_BCX: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    if not augmentation.noise:
        return x_BCX
    noise = torch.randn(x_BCX.shape, generator=generator, device=generator.device)
    return x_BCX + augmentation.noise * noise.to(x_BCX)
