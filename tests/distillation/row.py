"""A row of the battery."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from edgekd.distillation.objective import build_term
from edgekd.distillation.step import Step
from edgekd.distillation.term import Term
from edgekd.documents.recipe import Distillation
from tests.distillation.steps import (
    SHAPES,
    N,
    NumpyStep,
    Parameters,
    Shapes,
    make_setting,
    make_step,
    make_survey,
)


@dataclass(frozen=True)
class Case:
    """A term and what is known of it."""

    name: str
    section: Mapping[str, Any]
    """Its section of a recipe."""
    formula: Callable[[NumpyStep, Parameters], float]
    """The value on a step, given the term's state before it."""
    at_teacher: float | None = None
    """Value, and minimum, where the student equals its teacher; None when no such value is known."""
    per_example: bool = True
    """Whether the value is a mean over examples, so that a batch may be cut anywhere."""
    smooth: bool = True
    """Whether the gradient can be checked against differences: no hard choice depends on the student, and no
    part of the gradient is stopped or reversed."""
    tolerance: float = 1e-10
    """Relative difference to the formula that fp64 may leave."""
    source_shapes: Shapes = field(default_factory=lambda: SHAPES)
    """Tap -> shape of the sources' features."""
    after_epoch: bool = False
    """Whether the term has seen every training example once before."""


def build(case: Case) -> Term:
    """The term of a case, seeded, in fp64, prepared."""
    torch.manual_seed(0)
    (section,) = Distillation.model_validate({"terms": (dict(case.section),)}).terms
    term = build_term(section, make_setting(case.source_shapes))
    term.prepare(make_survey(case.source_shapes))
    term.double()
    if case.after_epoch:
        term(step_of(case, batch=N, seed=1))
    return term


def step_of(case: Case, **changes: object) -> Step:
    """A random step with sources as the case has them."""
    return make_step(source_shapes=case.source_shapes, **changes)
