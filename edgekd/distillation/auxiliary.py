"""Auxiliary classifiers over the joint labels, one at each stage of a network.

The classifier of a stage goes on where the network goes on: for each later stage one 3x3 convolution with the
width and the stride of that stage, then one more of the last width, each with batch norm and ReLU; mean over
the positions; linear. So all classifiers of a network end in features of one width. The published ones repeat
the network's residual blocks, at its full width; these multiply, on 32x32 images, 0.07 times as often as
resnet32x4, 0.13 wrn-40-2, 0.4 wrn-16-2 and resnet8x4, 0.5 vgg8 and mobilenetv2, 1.3 shufflenetv1.
Axes: R rows, X positions, D features, J joint labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.distillation.features import CONVOLUTIONS, NORMS, Layout, layout_of
from edgekd.distillation.head import Head
from edgekd.distillation.joint import TURNS
from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Role
from edgekd.distillation.step import Answer
from edgekd.errors import UsageError

_WIDEST = 128
"""Most channels of a convolution."""


class AuxiliaryClassifiers(nn.Module):
    """The classifiers of several stages of a network, in its order."""

    def __init__(self, layouts: Sequence[Layout], num_classes: int) -> None:
        """Build one for each of these features."""
        super().__init__()
        self._channels_last = [layout.channels_last for layout in layouts]
        self.bodies = nn.ModuleList(_body(layouts[place:]) for place in range(len(layouts)))
        width = min(layouts[-1].channels, _WIDEST)
        joint = len(TURNS) * num_classes
        self.classifiers = nn.ModuleList(Head(nn.Linear(width, joint)) for _ in layouts)

    def embed(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of the stages, in their dtype -> (R, D), float32 or float64, of each."""
        channels_first = [
            _channels_first(feature_R, last)
            for feature_R, last in zip(features, self._channels_last, strict=True)
        ]
        maps = [body(x_RCX) for body, x_RCX in zip(self.bodies, channels_first, strict=True)]
        return [y_RDX.flatten(2).mean(dim=2) if y_RDX.ndim > 2 else y_RDX for y_RDX in maps]

    def classify(self, embedded: Sequence[Tensor]) -> list[Tensor]:
        """What `embed` gave -> joint logits (R, J), float32 or float64, of each."""
        return [classifier(e_RD) for classifier, e_RD in zip(self.classifiers, embedded, strict=True)]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Features of the stages, in their dtype -> joint logits (R, J), float32 or float64, of each."""
        return self.classify(self.embed(features))


def auxiliary_classifiers(
    role: Role, taps: Sequence[str], num_classes: int, *, wanted_by: str
) -> AuxiliaryClassifiers:
    """Classifiers at these taps of a network, which stand in its order.

    Raises:
        UsageError: a tap does not exist, there are none, or their features have different numbers of axes.
    """
    layouts = [layout_of(role, tap, wanted_by=wanted_by) for tap in taps]
    if len({len(layout.positions) for layout in layouts}) != 1:
        shapes = ", ".join(f"{tap} {role.shapes[tap]}" for tap in taps) or "none"
        raise UsageError(
            f"needs stages of the {role.name} whose features have as many axes each; found {shapes}",
            where=f"term {wanted_by}",
            hint=f"name such taps; the {role.name} has {', '.join(role.shapes)}",
        )
    return AuxiliaryClassifiers(layouts, num_classes)


def stage_features(answer: Answer, taps: Sequence[str]) -> list[Tensor]:
    """Features (4B, ...) at the taps, of the four views."""
    answer = answer.of(*TURNS)
    return [answer.features[tap] for tap in taps]


def _channels_first(feature_R: Tensor, channels_last: bool) -> Tensor:
    """Feature (R, C, X), in its dtype but for fp16, in which several convolutions may overflow."""
    feature_R = widen(feature_R) if feature_R.dtype == torch.float16 else feature_R
    return feature_R.movedim(-1, 1) if channels_last else feature_R


def _body(layouts: Sequence[Layout]) -> Head:
    """The convolutions from a stage, the first of these, through the later ones."""
    widths = [layouts[0].channels, *(min(layout.channels, _WIDEST) for layout in [*layouts[1:], layouts[-1]])]
    sizes = [layout.positions for layout in [*layouts, layouts[-1]]]
    layers: list[nn.Module] = []
    for width, size in zip(pairwise(widths), pairwise(sizes), strict=True):
        layers += _block(*width, *size)
    return Head(*layers)


def _block(channels: int, width: int, before: tuple[int, ...], after: tuple[int, ...]) -> list[nn.Module]:
    """Layers from a map of one size to one of about another size; a vector has no map to convolve."""
    if not before:
        return [nn.Linear(channels, width, bias=False), NORMS[0](width), nn.ReLU()]
    stride: Any = tuple(max(1, round(old / new)) for old, new in zip(before, after, strict=True))
    convolution = CONVOLUTIONS[len(before)](channels, width, 3, stride, padding=1, bias=False)
    return [convolution, NORMS[len(before)](width), nn.ReLU()]
