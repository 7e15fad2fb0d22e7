"""A term as a user would write one, with a head; the rows name it as a recipe does."""

from __future__ import annotations

from torch import Tensor, nn

from edgekd.distillation.head import Head
from edgekd.distillation.logits import widen
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import Step
from edgekd.distillation.term import RowTerm


class SquaredDistance(RowTerm):
    """Mean squared difference of the logits, or of a head on a feature and the teacher's logits."""

    def __init__(self, setting: Setting, scale: float, tap: str) -> None:
        super().__init__()
        self.sources = ("teacher",)
        self.student_taps = (tap,) if tap else ()
        self.scale = scale
        self.head: Head | None = None
        if tap:
            (width,) = setting.student.shape(tap, wanted_by="own")
            self.head = Head(nn.Linear(width, setting.num_classes))

    def rows(self, step: Step) -> Tensor:
        own_BK = widen(step.student.logits())
        if self.head is not None:
            own_BK = self.head(step.student.feature(self.student_taps[0]))
        teacher_BK = widen(step.sources["teacher"].logits()).detach()
        return self.scale * (own_BK - teacher_BK).square().mean(dim=1)


def build(setting: Setting, scale: float = 1.0, tap: str = "") -> RowTerm:
    return SquaredDistance(setting, scale, tap)
