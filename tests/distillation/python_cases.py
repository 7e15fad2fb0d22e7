"""Rows of a term of the user's own."""

from __future__ import annotations

from collections.abc import Iterable

from tests.distillation.row import Case
from tests.distillation.steps import Array, NumpyStep, Parameters

KIND = "python:tests.distillation.own_term:build"


def squared(own_BK: Iterable[Array], teacher_BK: Array, scale: float) -> float:
    total = 0.0
    for own_K, teacher_K in zip(own_BK, teacher_BK, strict=True):
        total += scale * sum((s - t) ** 2 for s, t in zip(own_K, teacher_K, strict=True)) / len(own_K)
    return float(total / len(teacher_BK))


def with_head(step: NumpyStep, state: Parameters) -> float:
    weight_KC, bias_K = state["inner.head.0.weight"], state["inner.head.0.bias"]
    own_BK = [weight_KC @ feature_C + bias_K for feature_C in step.student.feature("pool")]
    return squared(own_BK, step.teacher.logits(), 0.25)


PYTHON_CASES = (
    Case(
        "python",
        {"kind": KIND},
        lambda s, _: squared(s.student.logits(), s.teacher.logits(), 1.0),
        at_teacher=0.0,
    ),
    Case(
        "python with arguments and a head", {"kind": KIND, "args": {"scale": 0.25, "tap": "pool"}}, with_head
    ),
)
