"""The objective of a training: a weighted sum of named parts, built from a recipe.

fp32        label_weight * CE + sum_i weight_i * term_i
quantized   label_weight * CE + teacher_weight * sum_i weight_i * term_i + self_weight * KD(fp32 student)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

import torch
from torch import Tensor

from edgekd.distillation.kd import KD
from edgekd.distillation.labels import Labels
from edgekd.distillation.step import SELF, Step, Term
from edgekd.documents.recipe import Distillation, KDTerm, QuantizedTraining
from edgekd.documents.recipe import Term as TermSection

LABELS_ONLY = Distillation(label_weight=1.0, terms=())
"""What a network without a teacher learns from."""


@dataclass(frozen=True)
class Part:
    """A term with its name in logs and its factor in the sum."""

    name: str
    weight: float
    term: Term


@dataclass(frozen=True)
class Loss:
    """The value of an objective on one batch; still on the device, nothing was waited for."""

    total: Tensor
    """Scalar, carries the gradient."""
    values_P: Tensor
    """(P,) value of each part before its weight, detached, in the order of `Objective.names`."""


class Objective:
    """A weighted sum of parts; call it with a step."""

    def __init__(self, parts: Sequence[Part]) -> None:
        """Keep the parts whose weight is not zero; the others cost nothing."""
        self.parts = tuple(part for part in parts if part.weight)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the parts."""
        return tuple(part.name for part in self.parts)

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the networks that must teach, each once."""
        return tuple(dict.fromkeys(source for part in self.parts for source in part.term.sources))

    def __call__(self, step: Step) -> Loss:
        """The sum over the parts."""
        values = [part.term(step) for part in self.parts]
        weighted = [part.weight * value for part, value in zip(self.parts, values, strict=True)]
        return Loss(total=torch.stack(weighted).sum(), values_P=torch.stack(values).detach())


def build_objective(distillation: Distillation, *, label_smoothing: float = 0.0) -> Objective:
    """The objective of an fp32 training."""
    labels = Part("labels", distillation.label_weight, Labels(label_smoothing))
    return Objective([labels, *_term_parts(distillation.terms, factor=1.0)])


def build_quantized_objective(section: QuantizedTraining, distillation: Distillation) -> Objective:
    """The objective of a fine-tuning with fake quantization: labels, the recipe's terms, the fp32 student."""
    labels = Part("labels", section.label_weight, Labels())
    own = Part(SELF, section.self_weight, KD(section.self_temperature, source=SELF))
    return Objective([labels, *_term_parts(distillation.terms, factor=section.teacher_weight), own])


def build_term(section: TermSection) -> Term:
    """The term that a section of the recipe asks for."""
    match section:
        case KDTerm():
            return KD(section.temperature)
        case _:
            assert_never(section)


def _term_parts(sections: Sequence[TermSection], *, factor: float) -> list[Part]:
    """One part a section; the second `kd` is called `kd2`."""
    seen: Counter[str] = Counter()
    parts = []
    for section in sections:
        seen[section.kind] += 1
        number = "" if seen[section.kind] == 1 else str(seen[section.kind])
        parts.append(Part(section.kind + number, factor * section.weight, build_term(section)))
    return parts
