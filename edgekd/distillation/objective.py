"""The objective of a training: a weighted sum of named parts, built from a recipe.

fp32        label_weight * CE + sum_i weight_i(epoch) * term_i
quantized   label_weight * CE + teacher_weight * sum_i weight_i * term_i + self_weight * KD(own fp32)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor, nn

from edgekd.distillation.at import AT
from edgekd.distillation.crd import CRD
from edgekd.distillation.dist import DIST
from edgekd.distillation.dkd import DKD
from edgekd.distillation.exits import Exits
from edgekd.distillation.fitnet import FitNet
from edgekd.distillation.hsakd import HSAKD
from edgekd.distillation.js import JS
from edgekd.distillation.kd import KD
from edgekd.distillation.labels import Labels
from edgekd.distillation.lsskd import LSSKD
from edgekd.distillation.meal import MEAL
from edgekd.distillation.minilm import MiniLM
from edgekd.distillation.nd import ND
from edgekd.distillation.nkd import NKD
from edgekd.distillation.pad import PAD
from edgekd.distillation.pkt import PKT
from edgekd.distillation.pskd import PSKD
from edgekd.distillation.python_term import OwnTerm
from edgekd.distillation.reviewkd import ReviewKD
from edgekd.distillation.rkd import RKD
from edgekd.distillation.setting import Setting
from edgekd.distillation.sla import SLA
from edgekd.distillation.sp import SP
from edgekd.distillation.sskd import SSKD
from edgekd.distillation.step import SELF, Step
from edgekd.distillation.term import RowTerm, Survey, Term
from edgekd.distillation.uskd import USKD
from edgekd.documents.recipe import Distillation, QuantizedTraining
from edgekd.documents.terms import CRDTerm, ExitsTerm, JSTerm, KDTerm, PADTerm, PSKDTerm
from edgekd.documents.terms import Term as TermSection
from edgekd.documents.terms.classes import NDTerm, USKDTerm
from edgekd.documents.terms.features import (
    ATTerm,
    FitNetTerm,
    MiniLMTerm,
    PKTTerm,
    ReviewKDTerm,
    RKDTerm,
    SPTerm,
)
from edgekd.documents.terms.logits import DISTTerm, DKDTerm, LogitSection, MEALTerm, NKDTerm
from edgekd.documents.terms.pretext import HSAKDTerm, LSSKDTerm, SLATerm, SSKDTerm
from edgekd.documents.terms.python_term import PythonTerm
from edgekd.errors import UsageError

LABELS_ONLY = Distillation(label_weight=1.0, terms=())
"""What a network without a teacher learns from."""


@dataclass(frozen=True)
class Part:
    """A term with its name in logs and its factor in the sum."""

    name: str
    factor: float
    term: Term
    section: TermSection | None = None
    """Where its schedule stands; None for a part of constant weight 1."""

    def weight_at(self, epoch: int, epochs: int) -> float:
        """Its weight in an epoch, which counts from 1."""
        return self.factor * (1.0 if self.section is None else self.section.weight_at(epoch, epochs))


class Objective(nn.Module):
    """A weighted sum of parts; call it with a step. Its parameters are the heads that learn along."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Keep the parts that have a weight in some epoch; the others are the caller's to leave out."""
        super().__init__()
        self.parts = tuple(parts)
        self.terms = nn.ModuleDict({part.name: part.term for part in parts})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(part.name for part in self.parts)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the networks that must teach, each once."""
        return _distinct(part.term.sources for part in self.parts)

    @property
    def views(self) -> tuple[str, ...]:
        """The views of a batch that the parts read, the weak one first."""
        return _distinct([Term.views, *(part.term.views for part in self.parts)])

    @property
    def student_taps(self) -> tuple[str, ...]:
        """The taps of the student that the parts read."""
        return _distinct(part.term.student_taps for part in self.parts)

    def source_taps(self, source: str) -> tuple[str, ...]:
        """The taps of a source that the parts read."""
        return _distinct(part.term.source_taps for part in self.parts if source in part.term.sources)

    def weights(self, epoch: int, epochs: int) -> tuple[float, ...]:
        """The weight of each part in an epoch."""
        return tuple(part.weight_at(epoch, epochs) for part in self.parts)

    @property
    def fingerprint(self) -> list[list[str]]:
        """What the recipe's terms are, for the digest of a training."""
        return [[part.name, repr(part.factor), repr(part.section)] for part in self.parts]

    def prepare(self, survey: Survey) -> None:
        """Let every term look at the training split once."""
        for part in self.parts:
            part.term.prepare(survey)

    def memory(self) -> set[str]:
        """Names, in the objective's state, of what its terms remember of the training examples."""
        return {f"terms.{part.name}.{name}" for part in self.parts for name in part.term.memory}

    def forward(self, step: Step) -> tuple[Tensor, Tensor]:
        """The sum over the parts, and the parts.

        A part whose weight is zero in this epoch is not computed; its value is then zero.

        Returns:
            A scalar that carries the gradient, and the value of each part before its weight, (P,), detached.
        """
        weights = self.weights(step.epoch, step.epochs)
        zero = step.student.logits_RK.new_zeros((), dtype=torch.float32)
        values = [
            part.term(step) if weight else zero for part, weight in zip(self.parts, weights, strict=True)
        ]
        weighted = [weight * value for weight, value in zip(weights, values, strict=True) if weight]
        total = torch.stack(weighted).sum() if weighted else zero
        return total, torch.stack(values).detach()


def build_objective(
    distillation: Distillation, setting: Setting, *, label_smoothing: float = 0.0
) -> Objective:
    """The objective of an fp32 training.

    Raises:
        UsageError: a term needs a tap, a view, a source or a shape that is not there.
    """
    labels = _labels(distillation.label_weight, label_smoothing)
    return Objective([*labels, *_term_parts(distillation.terms, setting, factor=1.0)])


def build_quantized_objective(
    section: QuantizedTraining, distillation: Distillation, setting: Setting
) -> Objective:
    """The objective of a fine-tuning with fake quantization: labels, the recipe's terms, the fp32 student.

    Of the recipe's terms those remain that compare logits of the weak view and have nothing of their own:
    a quantized network has no taps, and heads would begin to learn only now. They have no schedule: those of
    the recipe count the epochs of a student that begins anew.
    """
    labels = _labels(section.label_weight, 0.0)
    logits = [term.without_schedule() for term in distillation.terms if isinstance(term, LogitSection)]
    parts = _term_parts(logits, setting, factor=section.teacher_weight)
    plain = [part for part in parts if _compares_logits(part.term)]
    own = [Part(SELF, section.self_weight, KD(section.self_temperature, source=SELF))]
    return Objective([*labels, *plain, *(own if section.self_weight else [])])


def build_term(section: TermSection, setting: Setting) -> Term:
    """The term that a section of the recipe asks for.

    Raises:
        UsageError: it cannot work in this setting.
    """
    match section:
        case KDTerm():
            return KD.of(section)
        case JSTerm():
            return JS(section, setting)
        case DKDTerm():
            return DKD(section, setting)
        case DISTTerm():
            return DIST(section, setting)
        case NKDTerm():
            return NKD(section, setting)
        case MEALTerm():
            return MEAL(section, setting)
        case USKDTerm():
            return USKD(section, setting)
        case NDTerm():
            return ND(section, setting)
        case FitNetTerm():
            return FitNet(section, setting)
        case ATTerm():
            return AT(section, setting)
        case SPTerm():
            return SP(section, setting)
        case RKDTerm():
            return RKD(section, setting)
        case PKTTerm():
            return PKT(section, setting)
        case ReviewKDTerm():
            return ReviewKD(section, setting)
        case MiniLMTerm():
            return MiniLM(section, setting)
        case CRDTerm():
            return CRD(section, setting)
        case PADTerm():
            return PAD(section, setting, of=_inner(section, setting))
        case PSKDTerm():
            return PSKD(section, setting)
        case ExitsTerm():
            return Exits(section, setting)
        case SSKDTerm():
            return SSKD(section, setting)
        case HSAKDTerm():
            return HSAKD(section, setting)
        case LSSKDTerm():
            return LSSKD(section, setting)
        case SLATerm():
            return SLA(section, setting)
        case PythonTerm():
            return OwnTerm(section, setting)
        case _:
            assert_never(section)


def _inner(section: PADTerm, setting: Setting) -> RowTerm | None:
    """The term whose distances another one weights."""
    of = None if section.of is None else build_term(section.of, setting)
    assert of is None or isinstance(of, RowTerm), "the section takes only such"
    return of


def _term_parts(sections: Sequence[TermSection], setting: Setting, *, factor: float) -> list[Part]:
    """One part a section that has a weight; the second `kd` is called `kd2`."""
    seen: Counter[str] = Counter()
    parts = []
    for section in sections:
        seen[section.tag] += 1
        number = "" if seen[section.tag] == 1 else str(seen[section.tag])
        if factor * section.weight:
            term = build_term(section, setting)
            check_term(term, section.kind, setting)
            parts.append(Part(section.tag + number, factor, term, section))
    return parts


def check_term(term: Term, kind: str, setting: Setting) -> None:
    """See that the setting has what a term reads.

    Raises:
        UsageError: it has not.
    """
    for name in term.sources:
        source = setting.source(name, wanted_by=kind)
        source.check_answers(term.views, wanted_by=kind)
        for tap in term.source_taps:
            source.shape(tap, wanted_by=kind)
    for tap in term.student_taps:
        setting.student.shape(tap, wanted_by=kind)
    missing = [view for view in term.views if view not in setting.views]
    if missing:
        raise UsageError(
            f"needs the views {', '.join(missing)}, which this task does not offer",
            where=f"term {kind}",
            hint=f"a term without them: this task offers {', '.join(setting.views)}; series and images have "
            "them all, images with H != W only without augmentation.flip",
        )


def _labels(weight: float, smoothing: float) -> list[Part]:
    return [Part("labels", weight, Labels(smoothing))] if weight else []


def _compares_logits(term: Term) -> bool:
    own = any(True for _ in term.parameters()) or any(True for _ in term.buffers())
    return not own and not term.student_taps and not term.source_taps and term.views == Term.views


def _distinct(groups: Iterable[Sequence[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))
