"""What the terms that compare relations within a batch share: one vector an example, of both networks."""

from __future__ import annotations

from torch import Tensor

from edgekd.distillation.logits import widen
from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Setting
from edgekd.distillation.step import TEACHER, Step
from edgekd.distillation.term import Term
from edgekd.documents.terms.features import PKTTerm, RKDTerm


class BatchRelations(Term):
    """Reads one pooled feature of the student and one of the teacher, of whatever widths."""

    def __init__(self, section: PKTTerm | RKDTerm, setting: Setting) -> None:
        """Raises UsageError: a tap does not exist."""
        super().__init__()
        teacher = setting.source(TEACHER, wanted_by=section.kind)
        self._student = vector_at(setting.student, section.student_tap, wanted_by=section.kind)
        self._teacher = vector_at(teacher, section.teacher_tap, wanted_by=section.kind)
        self.sources = (TEACHER,)
        self.student_taps, self.source_taps = (section.student_tap,), (section.teacher_tap,)

    def vectors(self, step: Step) -> tuple[Tensor, Tensor]:
        """Features (B, D) of the student and (B, D') of the teacher, float32 or float64."""
        student_B = widen(step.student.feature(self._student.tap))
        teacher_B = widen(step.sources[TEACHER].feature(self._teacher.tap))
        return self._student.mean(student_B), self._teacher.mean(teacher_B)
