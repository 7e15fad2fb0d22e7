"""Properties that every term has, each written once; a new term is a row in cases.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekd.distillation.step import Step
from tests.distillation.cases import CASES, Case

pytestmark = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def make_step(*, dtype: torch.dtype = torch.float64, scale: float = 3.0, batch: int = 6) -> Step:
    generator = torch.Generator().manual_seed(0)

    def logits() -> Tensor:
        values = scale * torch.randn(batch, 5, generator=generator, dtype=torch.float64)
        return values.to(dtype).requires_grad_()

    labels_B = torch.randint(0, 5, (batch,), generator=generator)
    return Step(logits(), labels_B, {"teacher": logits(), "self": logits()})


def value_of(case: Case, step: Step) -> float:
    return case.term(step).item()


def rows(step: Step, index: Tensor) -> Step:
    sources = {name: logits[index] for name, logits in step.sources.items()}
    return Step(step.student_logits_BK[index], step.labels_B[index], sources)


def test_agrees_with_its_formula(case: Case) -> None:
    step = make_step()
    teachers = {name: logits.detach().numpy() for name, logits in step.sources.items()}
    expected = case.formula(step.student_logits_BK.detach().numpy(), step.labels_B.numpy(), teachers)
    assert value_of(case, step) == pytest.approx(expected, rel=1e-12)


def test_gradient_reaches_the_student_and_no_source(case: Case) -> None:
    step = make_step()
    case.term(step).backward()
    assert step.student_logits_BK.grad is not None
    assert step.student_logits_BK.grad.abs().sum() > 0
    assert [logits.grad for logits in step.sources.values()] == [None, None]


def test_gradient_is_that_of_the_value(case: Case) -> None:
    step = make_step(batch=2)

    def of_student(student_logits_BK: Tensor) -> Tensor:
        return case.term(Step(student_logits_BK, step.labels_B, step.sources))

    assert torch.autograd.gradcheck(of_student, (step.student_logits_BK,))


def test_known_minimum_where_student_is_teacher(case: Case) -> None:
    if case.at_teacher is None:
        return
    step = make_step()
    same_BK = step.sources[case.term.sources[0]].detach().clone().requires_grad_()
    loss = case.term(Step(same_BK, step.labels_B, step.sources))
    loss.backward()
    assert loss.item() == pytest.approx(case.at_teacher, abs=1e-12)
    assert same_BK.grad is not None
    assert same_BK.grad.abs().max() < 1e-12
    assert value_of(case, step) > case.at_teacher


def test_is_a_mean_over_examples(case: Case) -> None:
    step = make_step(batch=4)
    halves = [value_of(case, rows(step, torch.tensor(index))) for index in ([0, 1], [2, 3])]
    doubled = rows(step, torch.tensor([0, 1, 2, 3, 0, 1, 2, 3]))
    assert value_of(case, step) == pytest.approx(np.mean(halves), rel=1e-12)
    assert value_of(case, doubled) == pytest.approx(value_of(case, step), rel=1e-12)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_logits_lose_only_their_own_rounding(case: Case, dtype: torch.dtype) -> None:
    half = make_step(dtype=dtype)
    sources = {name: logits.double() for name, logits in half.sources.items()}
    exact = value_of(case, Step(half.student_logits_BK.double(), half.labels_B, sources))
    loss = case.term(half)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_finite_for_extreme_logits(case: Case, dtype: torch.dtype) -> None:
    step = make_step(dtype=dtype, scale=10_000.0)
    loss = case.term(step)
    loss.backward()
    assert torch.isfinite(loss)
    assert step.student_logits_BK.grad is not None
    assert torch.isfinite(step.student_logits_BK.grad).all()
