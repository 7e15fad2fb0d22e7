"""The views in which a task can show a batch to the networks, stacked for one forward pass.

weak      the task's augmentation
strong    the same, then images: contrast, brightness and an erased patch; series: a shift in time and a
          masked stretch
pretext1  images with H = W: turned by a quarter (2: by a half, 3: by three quarters), as in RotNet and SSKD;
pretext2  other images: mirrored along H, along W, along both;
pretext3  series: negated, reversed, both. In each case four transformations with the unchanged example, which
          can be told apart and leave the class as it is (but for what looks alike turned or reversed). Images
          that the augmentation mirrors have them only where H = W: mirrored twice is not mirrored

The pretext views follow the literature's order: a mirroring by the augmentation is drawn once an example and
shared by its views, then each is transformed, then each is cropped on its own.
Axes: B examples, V views.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edgekd.documents.recipe import Augmentation
from edgekd.documents.views import PRETEXT, STRONG, WEAK
from edgekd.tasks.augment import augment, mirror

_STRENGTH = 0.4
"""Most change of contrast (a factor of 1 +- this) and of brightness (in units of the normalized input)."""
_ERASED = 0.5
"""Side of the erased patch, and length of the masked stretch, at most, as a part of the example's."""


def offered_views(input_shape: tuple[int, ...], augmentation: Augmentation) -> tuple[str, ...]:
    """Names of the views that examples of this shape (C, ...) have under an augmentation."""
    if len(input_shape) not in (2, 3):
        return (WEAK,)
    if augmentation.flip and input_shape[-1] != input_shape[-2]:
        return (WEAK, STRONG)
    return (WEAK, STRONG, *PRETEXT)


def has_fixed_views(augmentation: Augmentation, views: Sequence[str]) -> bool:
    """Whether an example looks the same in every epoch, in each of these views."""
    return augmentation == Augmentation() and STRONG not in views


def make_views(
    x_BCX: Tensor,
    views: Sequence[str],
    augmentation: Augmentation,
    generator: torch.Generator,
    *,
    background_C: Tensor | None = None,
) -> Tensor:
    """Show a normalized batch in several views, drawn anew each time where they are random.

    Args:
        x_BCX: (B, C, H, W), (B, C, L) or, for the weak view alone, any (B, C, ...).
        views: which, out of `offered_views`.
        augmentation: the task's.
        generator: of every random choice.
        background_C: what lies outside of an example, (C,), normalized; zeros when not given.

    Returns:
        (V * B, C, ...): the views one after the other, each with the examples in order.
    """
    if augmentation.flip:
        x_BCX = mirror(x_BCX, generator)
    unmirrored = augmentation.model_copy(update={"flip": False})
    stacked = torch.cat([_transform(x_BCX, view) for view in views]) if len(views) > 1 else x_BCX
    stacked = augment(stacked, unmirrored, generator, background_C=background_C)
    if STRONG not in views:
        return stacked
    parts = list(torch.split(stacked, len(x_BCX)))
    place = list(views).index(STRONG)
    parts[place] = _strengthen(parts[place], generator, background_C)
    return torch.cat(parts)


def _transform(x_BCX: Tensor, view: str) -> Tensor:
    if view not in PRETEXT:
        return x_BCX
    which = PRETEXT.index(view) + 1
    if x_BCX.ndim == 3:
        negated = -x_BCX if which in (1, 3) else x_BCX
        return negated.flip(-1) if which in (2, 3) else negated
    if x_BCX.shape[-1] == x_BCX.shape[-2]:
        return torch.rot90(x_BCX, which, (-2, -1))
    return x_BCX.flip([axis for bit, axis in ((1, -2), (2, -1)) if which & bit])


def _strengthen(x_BCX: Tensor, generator: torch.Generator, background_C: Tensor | None) -> Tensor:
    if x_BCX.ndim == 4:
        x_BCX = x_BCX * (1 + _STRENGTH * _signed(x_BCX, generator)) + _STRENGTH * _signed(x_BCX, generator)
        return _erase(x_BCX, (2, 3), generator, background_C)
    limits = Augmentation(crop=max(1, x_BCX.shape[-1] // 10))
    return _erase(augment(x_BCX, limits, generator, background_C=background_C), (2,), generator, background_C)


def _erase(
    x_BCX: Tensor, axes: tuple[int, ...], generator: torch.Generator, background_C: Tensor | None
) -> Tensor:
    """Put the background into a random box of each example."""
    inside = torch.ones(len(x_BCX), *[1] * (x_BCX.ndim - 1), dtype=torch.bool, device=x_BCX.device)
    for axis in axes:
        size = x_BCX.shape[axis]
        length = _ERASED * size * _uniform(x_BCX, generator)
        start = (size - length) * _uniform(x_BCX, generator)
        shape = [1] * x_BCX.ndim
        shape[axis] = size
        place = torch.arange(size, device=x_BCX.device).view(shape)
        inside = inside & (place >= start) & (place < start + length)
    background = x_BCX.new_zeros(x_BCX.shape[1]) if background_C is None else background_C.to(x_BCX)
    return torch.where(inside, background.view(-1, *[1] * (x_BCX.ndim - 2)), x_BCX)


def _uniform(x_BCX: Tensor, generator: torch.Generator) -> Tensor:
    """One number in [0, 1) an example, (B, 1, ...)."""
    drawn_B = torch.rand(len(x_BCX), generator=generator, device=generator.device)
    return drawn_B.to(x_BCX).view(-1, *[1] * (x_BCX.ndim - 1))


def _signed(x_BCX: Tensor, generator: torch.Generator) -> Tensor:
    return 2 * _uniform(x_BCX, generator) - 1
