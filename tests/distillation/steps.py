"""A step in torch and the same step in NumPy, with every view and every tap that a term may read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgekd.distillation.frozen_heads import untrained_heads
from edgekd.distillation.setting import Role, Setting
from edgekd.distillation.step import Answer, Step
from edgekd.distillation.term import Survey
from edgekd.documents.recipe import Distillation
from edgekd.documents.views import PRETEXT, STRONG, WEAK

Array = NDArray[np.float64]

VIEWS = (WEAK, STRONG, *PRETEXT)
SOURCES = ("teacher", "self")
K, N = 5, 24
Shapes = Mapping[str, tuple[int, ...]]
SHAPES: Shapes = {
    "stem": (3, 8, 8),
    "stage1": (4, 8, 8),
    "stage2": (6, 4, 4),
    "qkv": (5, 12),
    "pool": (6,),
    "logits": (K,),
}
"""Tap -> shape of one example's feature, of the student, and of every source where a row says no other."""
OTHER_SHAPES: Shapes = {
    "stem": (5, 8, 8),
    "stage1": (7, 6, 3),
    "stage2": (9, 2, 6),
    "qkv": (5, 24),
    "pool": (9,),
    "logits": (K,),
}
"""Sources unlike the student: other widths, larger and smaller maps."""
LABELS_N = torch.arange(N) % K


def make_setting(source_shapes: Shapes = SHAPES) -> Setting:
    """Networks with these shapes at their taps, and heads on the frozen teacher."""
    setting = Setting(
        student=Role("student", nn.Identity(), SHAPES),
        sources={name: Role(name, nn.Identity(), source_shapes) for name in SOURCES},
        num_classes=K,
        count=N,
        views=VIEWS,
    )
    return replace(setting, heads=_trained_heads(setting))


def _trained_heads(setting: Setting) -> dict[str, dict[str, Tensor]]:
    """Heads with values as a training might leave them, seeded."""
    headed = Distillation.model_validate({"terms": ({"kind": "sskd"}, {"kind": "hsakd"})})
    generator = torch.Generator().manual_seed(3)

    def trained(name: str, value: Tensor) -> Tensor:
        if not value.is_floating_point():
            return value
        drawn = 0.5 * torch.randn(value.shape, generator=generator)
        return drawn.abs() + 0.5 if name.endswith("running_var") else drawn

    heads = untrained_heads(headed, setting)
    return {kind: {name: trained(name, one) for name, one in state.items()} for kind, state in heads.items()}


SETTING = make_setting()


def make_survey(source_shapes: Shapes = SHAPES) -> Survey:
    """The training split as every source sees it: seeded features."""

    def features(source: str, tap: str) -> Tensor:
        generator = torch.Generator().manual_seed(len(source))
        return torch.randn(N, *source_shapes[tap], generator=generator)

    return Survey(LABELS_N, features)


@dataclass(frozen=True)
class Drawn:
    """What the random step is drawn with."""

    dtype: torch.dtype = torch.float64
    scale: float = 3.0
    batch: int = 6
    seed: int = 0
    views: tuple[str, ...] = VIEWS
    taps: tuple[str, ...] = tuple(SHAPES)
    source_shapes: Shapes = field(default_factory=lambda: SHAPES)


def make_step(drawn: Drawn = Drawn(), **changes: object) -> Step:
    """A random step: logits and features of the student and two sources, requiring gradients everywhere."""
    drawn = Drawn(**{**vars(drawn), **changes})  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(drawn.seed)

    def rows(*shape: int) -> Tensor:
        values = torch.randn(len(drawn.views) * drawn.batch, *shape, generator=generator, dtype=torch.float64)
        return (drawn.scale * values).to(drawn.dtype).requires_grad_()

    def answer(shapes: Shapes) -> Answer:
        return Answer(rows(K), {tap: rows(*shapes[tap]) for tap in drawn.taps}, drawn.views)

    indices_B = torch.randperm(N, generator=generator)[: drawn.batch]
    student, teacher, own = (answer(shapes) for shapes in (SHAPES, drawn.source_shapes, drawn.source_shapes))
    return Step(student, LABELS_N[indices_B], {"teacher": teacher, "self": own}, indices_B, epoch=3, epochs=8)


class Seen:
    """An answer in NumPy: `logits(view)`, `feature(tap, view)`, float64."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    def logits(self, view: str = WEAK) -> Array:
        return self._answer.logits(view).detach().double().numpy()

    def feature(self, tap: str, view: str = WEAK) -> Array:
        return self._answer.feature(tap, view).detach().double().numpy()


class NumpyStep:
    """A step in NumPy, for formulas that share no code with the terms."""

    def __init__(self, step: Step) -> None:
        self.student = Seen(step.student)
        self.teacher = Seen(step.sources["teacher"])
        self.own = Seen(step.sources["self"])
        self.labels = step.labels_B.numpy()
        self.indices = step.indices_B.numpy()
        self.epoch, self.epochs = step.epoch, step.epochs


Parameters = Mapping[str, Array]
"""Name -> value of a term's parameters and buffers, as its state_dict has them."""


def parameters_of(term: nn.Module) -> dict[str, Array]:
    """Parameters and buffers of a term in NumPy."""
    return {name: value.detach().double().numpy().copy() for name, value in term.state_dict().items()}


def leaves(answer: Answer) -> list[Tensor]:
    """Every tensor of an answer."""
    return [answer.logits_RK, *answer.features.values()]


def rows_of(step: Step, examples: list[int]) -> Step:
    """The step of some of its examples."""

    def part(answer: Answer) -> Answer:
        size = len(step.labels_B)
        rows = torch.tensor([view * size + one for view in range(len(answer.views)) for one in examples])
        features = {tap: value[rows] for tap, value in answer.features.items()}
        return Answer(answer.logits_RK[rows], features, answer.views)

    picked = torch.tensor(examples)
    sources = {name: part(answer) for name, answer in step.sources.items()}
    return Step(
        part(step.student), step.labels_B[picked], sources, step.indices_B[picked], step.epoch, step.epochs
    )
