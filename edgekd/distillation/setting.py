"""Where an objective will work: what a term must know of the networks and the data to be built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor, nn

from edgekd.documents.base import nearest
from edgekd.errors import UsageError

State = Mapping[str, Tensor]

_LOGITS_ALONE = "a term that compares logits of the example as it is: kd, js, dkd, nkd, dist or meal"


@dataclass(frozen=True)
class Role:
    """A network that takes part, and the shapes of what can be read of it."""

    name: str
    """`student`, or the name of a source."""
    network: nn.Module
    shapes: Mapping[str, tuple[int, ...]]
    """Tap -> shape of the feature of one example, without the batch axis, in the order of the network."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """Tap -> path of the submodule whose output it is."""
    views: tuple[str, ...] | None = None
    """The views that it answers to, where only its answers are known; None for a network."""

    def shape(self, tap: str, *, wanted_by: str) -> tuple[int, ...]:
        """The shape at a tap.

        Raises:
            UsageError: there is no such tap; names the nearest, and all.
        """
        self.check_runs(wanted_by=wanted_by)
        if tap not in self.shapes:
            near = nearest(tap, list(self.shapes))
            raise UsageError(
                f"reads the tap '{tap}', which the {self.name} does not have{near}",
                where=f"term {wanted_by}",
                hint=f"one of the {self.name}'s taps: {', '.join(self.shapes)}",
            )
        return self.shapes[tap]

    def check_runs(self, *, wanted_by: str) -> None:
        """See that it is a network whose features can be read.

        Raises:
            UsageError: only its answers are known.
        """
        if self.views is not None:
            raise UsageError(
                f"reads features of the {self.name}, of which only answers are known",
                where=f"term {wanted_by}",
                hint=_LOGITS_ALONE,
            )

    def check_answers(self, views: Sequence[str], *, wanted_by: str) -> None:
        """See that it answers to views of an example.

        Raises:
            UsageError: only its answers to other views are known.
        """
        unknown = [view for view in views if self.views is not None and view not in self.views]
        if unknown:
            raise UsageError(
                f"reads answers of the {self.name} to the views {', '.join(unknown)}, which are not known",
                where=f"term {wanted_by}",
                hint=_LOGITS_ALONE,
            )

    def stages(self) -> tuple[str, ...]:
        """The taps stage1, stage2, ... in the order of the network."""
        return tuple(tap for tap in self.shapes if tap.startswith("stage"))


@dataclass(frozen=True)
class Setting:
    """The networks and the data that an objective is built for."""

    student: Role
    sources: Mapping[str, Role]
    num_classes: int
    """K."""
    count: int
    """Training examples N."""
    views: tuple[str, ...]
    """The views that the task offers."""
    heads: Mapping[str, State] = field(default_factory=dict)
    """Kind of a term -> the state of the head that was trained on the frozen teacher for it."""

    def source(self, name: str, *, wanted_by: str) -> Role:
        """A network that teaches.

        Raises:
            UsageError: there is none of this name.
        """
        if name not in self.sources:
            raise UsageError(
                f"needs a {name}, which was not given",
                where=f"term {wanted_by}",
                hint=f"give the {name}, or leave the term out",
            )
        return self.sources[name]


def pair_stages(
    setting: Setting, source: Role, student_taps: Sequence[str], source_taps: Sequence[str], *, wanted_by: str
) -> list[tuple[str, str]]:
    """The pairs of taps that a term compares: those named, or all stages of both, one to one.

    Raises:
        UsageError: a tap does not exist, or the numbers differ.
    """
    source.check_runs(wanted_by=wanted_by)
    students = tuple(student_taps) or setting.student.stages()
    teachers = tuple(source_taps) or source.stages()
    for tap in students:
        setting.student.shape(tap, wanted_by=wanted_by)
    for tap in teachers:
        source.shape(tap, wanted_by=wanted_by)
    if len(students) != len(teachers) or not students:
        raise UsageError(
            f"{len(students)} taps of the student ({', '.join(students)}) cannot be paired with "
            f"{len(teachers)} of the {source.name} ({', '.join(teachers)})",
            where=f"term {wanted_by}",
            hint="name as many student_taps as teacher_taps",
        )
    return list(zip(students, teachers, strict=True))
