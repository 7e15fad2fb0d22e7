"""ReviewKD: what deeper stages of the student have learned reviews its shallower ones.

Formula
    Stages from the deep to the shallow, x_l the student's map, t_l the teacher's, m = min(512, width of the
    deepest x):
        n_l = conv1x1-BN(x_l), m wide;  u_l = r_{l+1} enlarged to the size of x_l (nearest)
        g = sigmoid(conv1x1[n_l, u_l]), two maps;  r_l = g_1 n_l + g_2 u_l, brought to the size of t_l
        y_l = conv3x3-BN(r_l), as wide as t_l;  the deepest stage has r = n
    L = sum_l HCL(y_l, t_l), averaged over examples.
    HCL(y, t) = sum_k w_k (mean of (y_k - t_k)^2) / sum_k w_k: y_0 = y, w_0 = 1; then y averaged down to
    those of 4, 2, 1 positions an axis that are fewer than t has, with w = 1/2, 1/4, 1/8 in turn.
Source
    Chen et al., "Distilling Knowledge via Knowledge Review", CVPR 2021, arXiv 2104.09044.
Shapes
    student_taps and teacher_taps: pairs of maps (B, C, H, W) or (B, C, L), from the shallow to the deep, of
    any widths and sizes; vectors (B, C) are maps of one position. The loss is taken in fp32.
Defaults
    CIFAR-100, all stages and the pooled feature, ramp over 20 epochs, 1.0 CE: 5 for WRN, resnet8x4 and
    ShuffleNetV1 students; 8 for ShuffleNetV2; 0.6 for resnet56 -> resnet20; 1 for resnet110 -> resnet32;
    30, with a learning rate of 0.01, for ResNet50 -> MobileNetV2.
    ImageNet: 1 for ResNet34 -> ResNet18, 8 for ResNet50 -> MobileNet, ramp over 1 epoch.
Traps
    The paper compares features before the activation. Our taps are what the stages give: before it for WRN,
    after it for ResNets, VGG and ShuffleNets.
    The 3x3 convolutions at the teacher's sizes cost more than a small student: on a CPU resnet8 trains about
    six times slower under resnet8x4 than by KD. They are left behind when the student ships.
    With batch norm in the heads an example's value depends on its batch.
    A map that is not square is averaged to as many positions along each axis, as far as its shorter side
    goes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgekd.distillation.features import CONVOLUTIONS, NORMS, Pair, pair_of, shrunk
from edgekd.distillation.head import Head
from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Role, Setting, pair_stages
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import RowTerm
from edgekd.documents.terms.features import ReviewKDTerm
from edgekd.errors import UsageError

_WIDEST = 512
_LEVELS = (4, 2, 1)


def hcl_rows(student_BCX: Tensor, teacher_BCX: Tensor) -> Tensor:
    """Squared difference of two maps at several sizes, of each example, (B,), float32 or float64.

    Args:
        student_BCX: (B, C, ...), any floating dtype.
        teacher_BCX: (B, C, ...), of the same shape; receives no gradient.
    """
    student_BCX, teacher_BCX = widen(student_BCX), widen(teacher_BCX.detach())
    total_B, weight, whole = _square_rows(student_BCX, teacher_BCX), 1.0, 1.0
    for level in _LEVELS:
        if level < min(teacher_BCX.shape[2:]):
            sizes, weight = [level] * (teacher_BCX.ndim - 2), weight / 2
            rows_B = _square_rows(shrunk(student_BCX, sizes), shrunk(teacher_BCX, sizes))
            total_B, whole = total_B + weight * rows_B, whole + weight
    return total_B / whole


class Fusion(nn.Module):
    """One stage's attention-based fusion with the deeper stages."""

    def __init__(self, width: int, middle: int, wanted: int, *, axes: int, deepest: bool) -> None:
        """Layers for a map of `width` channels with `axes` of positions, to be made `wanted` wide."""
        super().__init__()
        convolution, norm = CONVOLUTIONS[axes], NORMS[axes]
        first = convolution(width, middle, 1, bias=False)
        last = convolution(middle, wanted, 3, padding=1, bias=False)
        for layer in (first, last):
            nn.init.kaiming_uniform_(layer.weight, a=1)
        self.narrow, self.answer = Head(first, norm(middle)), Head(last, norm(wanted))
        self.gate = None if deepest else Head(convolution(2 * middle, 2, 1), nn.Sigmoid())

    def forward(self, x_BCX: Tensor, above_BCX: Tensor | None, sizes: Sequence[int]) -> tuple[Tensor, Tensor]:
        """The answer to the teacher's map, at `sizes`, float32; and what the next shallower stage reviews."""
        fused_BCX = self.narrow(x_BCX)
        if self.gate is not None and above_BCX is not None:
            above_BCX = _resized(above_BCX, x_BCX.shape[2:])
            both = torch.cat([fused_BCX, above_BCX], dim=1).to(x_BCX.dtype)
            own_B1X, deeper_B1X = self.gate(both).split(1, dim=1)
            fused_BCX = own_B1X * fused_BCX + deeper_B1X * above_BCX
        fused_BCX = _resized(fused_BCX, sizes)
        return self.answer(fused_BCX.to(x_BCX.dtype)), fused_BCX


class ReviewKD(RowTerm):
    """The student's fused stages against the teacher's."""

    smallest_batch = 2

    def __init__(self, section: ReviewKDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist, is no map, or cannot be compared with its partner."""
        super().__init__()
        student, teacher = setting.student, setting.source(TEACHER, wanted_by=section.kind)
        students, teachers = _chosen(student, section.student_taps), _chosen(teacher, section.teacher_taps)
        taps = pair_stages(setting, teacher, students, teachers, wanted_by=section.kind)
        self._pairs = [pair_of(student, one, teacher, other, wanted_by=section.kind) for one, other in taps]
        self._axes = _axes(self._pairs)
        middle = min(_WIDEST, self._pairs[-1].student.channels)
        last = len(taps) - 1
        self.fusions = nn.ModuleList(
            Fusion(
                pair.student.channels, middle, pair.teacher.channels, axes=self._axes, deepest=number == last
            )
            for number, pair in enumerate(self._pairs)
        )
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (tuple(names) for names in zip(*taps, strict=True))

    def rows(self, step: Step) -> Tensor:
        """Sum of `hcl_rows` over the stages, from the deep to the shallow."""
        total: list[Tensor] = []
        above: Tensor | None = None
        for pair, fusion in zip(reversed(self._pairs), reversed(self.fusions), strict=True):
            student_BCX, teacher_BCX = (self._as_map(feature) for feature in pair.features(step))
            answer_BCX, above = fusion(student_BCX, above, teacher_BCX.shape[2:])
            total.append(hcl_rows(answer_BCX, teacher_BCX))
        return torch.stack(total).sum(dim=0)

    def _as_map(self, feature_BCX: Tensor) -> Tensor:
        missing = self._axes - (feature_BCX.ndim - 2)
        return feature_BCX.reshape(*feature_BCX.shape, *[1] * missing)


def _chosen(role: Role, taps: Sequence[str]) -> tuple[str, ...]:
    pool = ("pool",) if "pool" in role.shapes else ()
    return tuple(taps) or role.stages() + pool


def _axes(pairs: Sequence[Pair]) -> int:
    """Axes of positions of the maps; vectors may stand beside them.

    Raises:
        UsageError: there are tokens, maps with different axes, or vectors alone.
    """
    found = {pair.student.kind: len(pair.student.positions) for pair in pairs if pair.student.positions}
    if len(found) != 1 or any(pair.student.tokens for pair in pairs):
        kinds = ", ".join(f"'{pair.student_tap}' is {pair.student.kind}" for pair in pairs)
        raise UsageError(
            f"fuses maps, and vectors beside them; of the student, {kinds}",
            where=f"term {ReviewKDTerm.tag}",
            hint="name taps of maps alone in student_taps and teacher_taps",
        )
    return next(iter(found.values()))


def _resized(x_BCX: Tensor, sizes: Sequence[int]) -> Tensor:
    """Each position takes what is nearest to it."""
    return x_BCX if x_BCX.shape[2:] == sizes else F.interpolate(x_BCX, list(sizes), mode="nearest")


def _square_rows(one_BCX: Tensor, other_BCX: Tensor) -> Tensor:
    return (one_BCX - other_BCX).square().flatten(1).mean(dim=1)
