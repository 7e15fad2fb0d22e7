"""What a method of the literature is: a published objective, a card, and values for certain networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from edgekd.documents.change import change
from edgekd.documents.recipe import Distillation
from edgekd.documents.terms import SECTIONS, Term, TermSection
from edgekd.documents.terms.logits import MEALTerm
from edgekd.documents.terms.pretext import HeadedSection, HeadTraining
from edgekd.documents.terms.weighting import PADTerm

Group = Literal[
    "labels",
    "logits",
    "features",
    "relations",
    "contrastive",
    "self-supervised",
    "weighting",
    "teacher-free",
]
Need = Literal["teacher", "labels", "views", "taps", "memory", "heads"]

PUBLISHED_EPOCHS = 240
"""Epochs of the trainings that the published schedules are made for."""

_NEEDS: Mapping[str, tuple[Need, ...]] = {
    "dkd": ("labels",),
    "nkd": ("labels",),
    "uskd": ("labels", "taps", "heads"),
    "nd": ("labels", "taps", "heads"),
    "fitnet": ("taps", "heads"),
    "at": ("taps",),
    "sp": ("taps",),
    "rkd": ("taps",),
    "pkt": ("taps",),
    "reviewkd": ("taps", "heads"),
    "minilm": ("taps",),
    "crd": ("labels", "taps", "memory", "heads"),
    "pad": ("taps", "heads"),
    "pskd": ("labels", "memory"),
    "exits": ("taps", "heads"),
    "sskd": ("labels", "views", "taps", "heads"),
    "hsakd": ("views", "taps", "heads"),
    "lsskd": ("views", "taps", "heads"),
    "sla": ("views", "taps", "heads"),
}
"""What the published form of a term needs beside the logits of the student and of a teacher."""


@dataclass(frozen=True)
class Pair:
    """What the authors change for certain networks."""

    teacher: str
    """Pattern of the teacher's name, such as `wrn-*`."""
    student: str
    """Pattern of the student's name."""
    changes: Mapping[str, Any]
    """Keys as `change` takes them."""

    def fits(self, teacher: str, student: str) -> bool:
        """Whether these networks are meant."""
        return fnmatchcase(teacher, self.teacher) and fnmatchcase(student, self.student)


@dataclass(frozen=True)
class Method:
    """A method of the literature."""

    name: str
    group: Group
    objective: Distillation
    """As published for CIFAR-100, or for the data set of its paper."""
    kind: str | None = None
    """The term that gives it its name; None where there is none."""
    variant: str = ""
    """What sets it apart from the plain form of its term."""
    pairs: tuple[Pair, ...] = ()
    """Other values for certain networks; the first pair that fits counts."""
    card: str = ""
    """Name of the file with its card, where that is not its term's."""

    @property
    def module(self) -> str:
        """Module whose docstring is its card, by its path inside the package."""
        return f"distillation/{self.card or self.kind}.py"

    @property
    def section(self) -> type[TermSection] | None:
        """The section of its term."""
        return next((one for one in SECTIONS if one.tag == self.kind), None)

    @property
    def needs(self) -> tuple[Need, ...]:
        """What it needs beside examples and a student; heads are small networks that learn along."""
        found: set[Need] = {need for term in self.objective.terms for need in _needs_of(term)}
        found |= {"teacher"} if self.objective.needs_teacher else set()
        found |= {"labels"} if self.objective.label_weight else set()
        every: tuple[Need, ...] = ("teacher", "labels", "views", "taps", "memory", "heads")
        return tuple(need for need in every if need in found)

    def objective_for(self, teacher: str, student: str, epochs: int) -> Distillation:
        """The published objective for these networks, its schedules brought to a number of epochs.

        Ramps, warm-ups and the trainings of heads are made for a training of 240 epochs, and keep their
        shares of a shorter one.
        """
        pair = next((one for one in self.pairs if one.fits(teacher, student)), None)
        objective = self.objective if pair is None else change(self.objective, self.kind, pair.changes)[0]
        share = min(1.0, epochs / PUBLISHED_EPOCHS)
        return objective.model_copy(
            update={"terms": tuple(_shortened(term, share) for term in objective.terms)}
        )


def _needs_of(term: Term) -> tuple[Need, ...]:
    if isinstance(term, MEALTerm) and term.discriminator:
        return ("heads",)
    return _NEEDS.get(term.kind, ())


def _shortened(term: Term, share: float) -> Term:
    """A term whose epochs are a share of what they were."""
    changes: dict[str, Any] = {"ramp_epochs": term.ramp_epochs * share}
    if isinstance(term, PADTerm):
        changes["warmup_epochs"] = round(term.warmup_epochs * share)
    if isinstance(term, HeadedSection):
        changes["head_training"] = _shorter(term.head_training, share)
    return term.model_copy(update=changes)


def _shorter(training: HeadTraining, share: float) -> HeadTraining:
    """A training of heads in a share of its epochs; as a cosine where no milestone is left."""
    epochs = max(1, round(training.epochs * share))
    milestones = tuple(dict.fromkeys(max(1, round(one * share)) for one in training.milestones))
    milestones = tuple(one for one in milestones if one < epochs)
    changes = {"epochs": epochs, "milestones": milestones}
    return training.model_copy(update=changes if milestones else {**changes, "schedule": "cosine"})
