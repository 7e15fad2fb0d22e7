"""What the terms that compare features share: where channels and positions lie, and maps of one size.

Axes: B examples, C channels, X positions: none of a vector, L, (H, W) or (D, H, W) of a map, T of tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Role
from edgekd.distillation.step import TEACHER, Step
from edgekd.errors import UsageError

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
"""Axes of positions -> layer."""
NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
"""Axes of positions -> batch norm over the examples and the positions."""

_POOLINGS: dict[int, Callable[..., Tensor]] = {
    1: F.adaptive_avg_pool1d,
    2: F.adaptive_avg_pool2d,
    3: F.adaptive_avg_pool3d,
}


@dataclass(frozen=True)
class Layout:
    """What the axes of a feature are."""

    channels: int
    """C."""
    positions: tuple[int, ...]
    """Sizes of X."""
    channels_last: bool
    """Whether it is (B, X, C) and not (B, C, X)."""

    @property
    def tokens(self) -> bool:
        """Whether its positions are those of tokens, which have no neighbors to be averaged with."""
        return self.channels_last and len(self.positions) == 1

    @property
    def kind(self) -> str:
        """What to call such a feature; those of one kind can be compared."""
        if self.tokens:
            return f"{self.positions[0]} tokens"
        if not self.positions:
            return "a vector"
        return "a series" if len(self.positions) == 1 else f"a map along {len(self.positions)} axes"


def layout_of(role: Role, tap: str, *, wanted_by: str) -> Layout:
    """What the axes at a tap are.

    One axis is a vector. Two are tokens (T, C), or a series (C, L) where a convolution along it and no layer
    norm makes them. Three are (C, H, W), or (H, W, C) of the stages of timm's networks that say NHWC.

    Raises:
        UsageError: there is no such tap.
    """
    shape = role.shape(tap, wanted_by=wanted_by)
    last = _is_tokens(role, tap) if len(shape) == 2 else _says_nhwc(role, tap) and len(shape) == 3
    if last:
        return Layout(shape[-1], shape[:-1], channels_last=True)
    return Layout(shape[0], shape[1:], channels_last=False)


def _is_tokens(role: Role, tap: str) -> bool:
    layers = list(role.network.get_submodule(role.paths.get(tap, "")).modules())
    convolves = any(isinstance(layer, nn.Conv1d) for layer in layers)
    return not convolves or any(isinstance(layer, nn.LayerNorm) for layer in layers)


def _says_nhwc(role: Role, tap: str) -> bool:
    return getattr(role.network, "output_fmt", "NCHW") == "NHWC" and tap in role.stages()


@dataclass(frozen=True)
class Pair:
    """A feature of the student and the feature of the teacher that it is compared with."""

    student_tap: str
    teacher_tap: str
    student: Layout
    teacher: Layout

    def features(self, step: Step) -> tuple[Tensor, Tensor]:
        """Both features (B, C, X) of a step, in their dtypes and sizes."""
        student_B = step.student.feature(self.student_tap)
        teacher_B = step.sources[TEACHER].feature(self.teacher_tap)
        return _channels_first(student_B, self.student), _channels_first(teacher_B, self.teacher)


def _channels_first(feature_B: Tensor, layout: Layout) -> Tensor:
    return feature_B.movedim(-1, 1) if layout.channels_last else feature_B


def pair_of(student: Role, student_tap: str, teacher: Role, teacher_tap: str, *, wanted_by: str) -> Pair:
    """A pair of features of one kind: maps with as many axes, as many tokens, or vectors.

    Raises:
        UsageError: a tap does not exist, or the two cannot be compared; names both shapes.
    """
    one = layout_of(student, student_tap, wanted_by=wanted_by)
    other = layout_of(teacher, teacher_tap, wanted_by=wanted_by)
    if one.kind != other.kind:
        raise UsageError(
            f"cannot compare '{student_tap}' of the {student.name}, {one.kind} "
            f"{student.shapes[student_tap]}, with '{teacher_tap}' of the {teacher.name}, {other.kind} "
            f"{teacher.shapes[teacher_tap]}",
            where=f"term {wanted_by}",
            hint="name taps whose features are alike",
        )
    return Pair(student_tap, teacher_tap, one, other)


def same_size(student_BCX: Tensor, teacher_BCX: Tensor) -> tuple[Tensor, Tensor]:
    """Both maps at the smaller size along each axis, averaged where they are larger; float32 or float64."""
    sizes = [min(pair) for pair in zip(student_BCX.shape[2:], teacher_BCX.shape[2:], strict=True)]
    return shrunk(widen(student_BCX), sizes), shrunk(widen(teacher_BCX), sizes)


def shrunk(x_BCX: Tensor, sizes: Sequence[int]) -> Tensor:
    """Mean of a map over the part that falls to each position of a smaller one; itself at the same size."""
    if tuple(x_BCX.shape[2:]) == tuple(sizes):
        return x_BCX
    return _POOLINGS[len(sizes)](x_BCX, sizes)


def unit(rows_BD: Tensor) -> Tensor:
    """Each row at length 1; a row of zeros remains, without a gradient, which would have no bound there."""
    square_B1 = rows_BD.square().sum(dim=1, keepdim=True)
    empty_B1 = square_B1 <= torch.finfo(rows_BD.dtype).tiny
    scale_B1 = torch.rsqrt(torch.where(empty_B1, 1.0, square_B1))
    return rows_BD * torch.where(empty_B1, 0.0, scale_B1)
