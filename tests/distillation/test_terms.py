"""Properties that every term has, each written once; a new term is a row in cases.py."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from edgekd.distillation.step import Answer, Step
from edgekd.distillation.term import Term
from edgekd.documents.terms import SECTIONS
from tests.distillation.cases import CASES
from tests.distillation.row import Case, build, step_of
from tests.distillation.steps import NumpyStep, leaves, parameters_of, rows_of

every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def value_of(term: Term, step: Step) -> float:
    return term(step).item()


def has_state(term: Term) -> bool:
    return bool(term.state_dict())


def read_by(term: Term, answer: Answer, taps: tuple[str, ...]) -> list[Tensor]:
    return [answer.logits_RK, *(answer.features[tap] for tap in taps)]


def test_every_term_has_a_row() -> None:
    kinds = {case.section["kind"].partition(":")[0] for case in CASES}  # python:package.module:function
    assert {section.tag for section in SECTIONS} == kinds


@every_case
def test_agrees_with_its_formula(case: Case) -> None:
    term, step = build(case), step_of(case)
    expected = case.formula(NumpyStep(step), parameters_of(term))
    assert value_of(term, step) == pytest.approx(expected, rel=case.tolerance)


@every_case
def test_gradient_reaches_the_student_and_its_heads_and_no_source(case: Case) -> None:
    term, step = build(case), step_of(case)
    term(step).backward()
    reached = [leaf.grad for leaf in leaves(step.student) if leaf.grad is not None]
    assert sum(float(grad.abs().sum()) for grad in reached) > 0
    assert [leaf.grad for source in step.sources.values() for leaf in leaves(source)] == [None] * sum(
        len(leaves(source)) for source in step.sources.values()
    )
    assert all(one.grad is not None for one in term.parameters() if one.requires_grad)


@every_case
def test_gradient_is_that_of_the_value(case: Case) -> None:
    if not case.smooth:
        pytest.skip("a hard choice depends on the student, or the gradient is not the value's")
    term, step = build(case), step_of(case, batch=4, scale=1.0)
    inputs = tuple(leaves(step.student))

    def of_student(logits_RK: Tensor, *features: Tensor) -> Tensor:
        taps = dict(zip(step.student.features, features, strict=True))
        student = Answer(logits_RK, taps, step.student.views)
        fresh = copy.deepcopy(term)  # a memory must not move between two looks at the same step
        return fresh(Step(student, step.labels_B, step.sources, step.indices_B, step.epoch, step.epochs))

    assert torch.autograd.gradcheck(of_student, inputs, atol=1e-4, fast_mode=True)


@every_case
def test_known_minimum_where_student_is_teacher(case: Case) -> None:
    if case.at_teacher is None:
        pytest.skip("no value is known there")
    term, step = build(case), step_of(case)
    teacher = step.sources["teacher"]
    features = {tap: value.detach().clone().requires_grad_() for tap, value in teacher.features.items()}
    same = Answer(teacher.logits_RK.detach().clone().requires_grad_(), features, teacher.views)
    loss = term(Step(same, step.labels_B, step.sources, step.indices_B, step.epoch, step.epochs))
    loss.backward()
    assert loss.item() == pytest.approx(case.at_teacher, abs=1e-9)
    assert all(leaf.grad is None or leaf.grad.abs().max() < 1e-8 for leaf in leaves(same))
    assert value_of(term, step) > case.at_teacher


@every_case
def test_is_a_mean_over_examples_or_says_that_it_is_not(case: Case) -> None:
    step = step_of(case, batch=8)
    halves = [value_of(build(case), rows_of(step, half)) for half in ([0, 1, 2, 3], [4, 5, 6, 7])]
    whole = value_of(build(case), step)
    assert (whole == pytest.approx(np.mean(halves), rel=1e-9)) == case.per_example


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_loses_only_its_own_rounding(case: Case, dtype: torch.dtype) -> None:
    half, term = step_of(case, dtype=dtype, scale=1.0), build(case).float()
    state = {name: value.clone() for name, value in term.state_dict().items()}
    loss = term(half)
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    if any(True for _ in term.parameters()):
        return  # a head computes in the arithmetic of its input
    term.load_state_dict(state)
    exact = value_of(term.double(), doubled(half))
    assert loss.item() == pytest.approx(exact, rel=1e-4, abs=1e-6)


def doubled(step: Step) -> Step:
    def wide(answer: Answer) -> Answer:
        features = {tap: value.double() for tap, value in answer.features.items()}
        return Answer(answer.logits_RK.double(), features, answer.views)

    sources = {name: wide(answer) for name, answer in step.sources.items()}
    return Step(wide(step.student), step.labels_B, sources, step.indices_B, step.epoch, step.epochs)


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_finite_for_extreme_values(case: Case, dtype: torch.dtype) -> None:
    term, step = build(case).float(), step_of(case, dtype=dtype, scale=10_000.0)
    loss = term(step)
    loss.backward()
    assert torch.isfinite(loss)
    grads = [leaf.grad for leaf in leaves(step.student) if leaf.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@every_case
@pytest.mark.parametrize("what", ["zeros", "equal rows"])
def test_finite_where_nothing_varies(case: Case, what: str) -> None:
    term, step = build(case).float(), step_of(case, dtype=torch.float32)
    with torch.no_grad():
        for answer in (step.student, *step.sources.values()):
            for leaf in leaves(answer):
                leaf.copy_(torch.zeros_like(leaf) if what == "zeros" else leaf[:1].expand_as(leaf).clone())
    loss = term(step)
    loss.backward()
    assert torch.isfinite(loss)
    grads = [leaf.grad for leaf in leaves(step.student) if leaf.grad is not None]
    assert all(torch.isfinite(grad).all() for grad in grads)


@every_case
def test_reads_only_what_it_declares(case: Case) -> None:
    term = build(case)
    step = step_of(case)

    def narrowed(answer: Answer, taps: tuple[str, ...]) -> Answer:
        part = answer.of(*term.views)
        return Answer(part.logits_RK, {tap: part.features[tap] for tap in taps}, part.views)

    sources = {name: narrowed(step.sources[name], term.source_taps) for name in term.sources}
    student = narrowed(step.student, term.student_taps)
    narrow = Step(student, step.labels_B, sources, step.indices_B, step.epoch, step.epochs)
    assert value_of(build(case), narrow) == pytest.approx(value_of(term, step), rel=1e-12)


@every_case
def test_works_without_labels_unless_it_says_that_it_reads_them(case: Case) -> None:
    term, step = build(case), step_of(case)
    if term.reads_labels:
        pytest.skip("an objective with it refuses unlabeled examples")
    unlabeled_B = torch.full_like(step.labels_B, -1)
    loss = term(dataclasses.replace(step, labels_B=unlabeled_B))
    loss.backward()
    grads = [leaf.grad for leaf in leaves(step.student) if leaf.grad is not None]
    assert torch.isfinite(loss)
    assert all(torch.isfinite(grad).all() for grad in grads)


@every_case
def test_never_waits_for_the_device(case: Case) -> None:
    """Tensors without values: what asks for one, or for a shape that depends on one, fails."""
    term, step = build(case).float(), step_of(case, dtype=torch.float32)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def fake(answer: Answer) -> Answer:
            features = {tap: mode.from_tensor(value) for tap, value in answer.features.items()}
            return Answer(mode.from_tensor(answer.logits_RK), features, answer.views)

        sources = {name: fake(source) for name, source in step.sources.items()}
        labels_B, indices_B = mode.from_tensor(step.labels_B), mode.from_tensor(step.indices_B)
        loss = term(Step(fake(step.student), labels_B, sources, indices_B, step.epoch, step.epochs))
        loss.backward()
        assert tuple(loss.shape) == ()
