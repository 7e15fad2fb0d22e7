"""MEAL: the minimum at the teacher, the mean of an ensemble, and which way the discriminator pulls."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from edgekd.distillation.meal import MEAL, deception_rows, meal_rows
from edgekd.documents.terms.logits import MEALTerm
from tests.distillation.steps import SETTING


def drawn(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(4, 5, generator=generator, dtype=torch.float64)


def test_at_the_teacher_it_is_the_entropy_and_does_not_pull() -> None:
    teacher_BK = drawn(0)
    student_BK = teacher_BK.clone().requires_grad_()
    rows_B = meal_rows(student_BK.log_softmax(dim=1), teacher_BK.log_softmax(dim=1))
    rows_B.sum().backward()
    p_BK = teacher_BK.softmax(dim=1).numpy()
    assert rows_B.tolist() == pytest.approx((-(p_BK * np.log(p_BK)).sum(axis=1)).tolist())
    assert student_BK.grad.abs().max().item() < 1e-12


def test_logarithms_of_mean_probabilities_teach_what_each_teacher_does_on_average() -> None:
    student_BK, one_BK, two_BK = (drawn(seed).log_softmax(dim=1) for seed in range(3))
    mean_BK = ((one_BK.exp() + two_BK.exp()) / 2).log()
    separately_B = (meal_rows(student_BK, one_BK) + meal_rows(student_BK, two_BK)) / 2
    assert meal_rows(student_BK, mean_BK.log_softmax(dim=1)).tolist() == pytest.approx(separately_B.tolist())


def test_the_discriminator_learns_to_tell_and_the_student_not_to_be_told() -> None:
    """A step along each one's own gradient: the discriminator's lowers its loss, the student's raises it."""
    torch.manual_seed(0)
    term = MEAL(MEALTerm(kind="meal", discriminator=True), SETTING).double()
    assert term.head is not None
    student_BK, teacher_BK = drawn(0).log_softmax(dim=1).requires_grad_(), drawn(1).log_softmax(dim=1)

    def loss(shown_BK: torch.Tensor) -> torch.Tensor:
        assert term.head is not None
        return deception_rows(term.head, shown_BK, teacher_BK).mean()

    before = loss(student_BK)
    before.backward()
    moved_BK = (student_BK - 0.1 * student_BK.grad).detach()
    assert loss(moved_BK).item() > before.item() + 1e-6
    with torch.no_grad():
        for weight in term.head.parameters():
            weight -= 0.1 * weight.grad
    assert loss(student_BK).item() < before.item() - 1e-6


def test_the_reversed_gradient_is_as_large_as_the_discriminators_own() -> None:
    torch.manual_seed(0)
    head = torch.nn.Linear(5, 1).double()
    student_BK, teacher_BK = drawn(0).requires_grad_(), drawn(1)
    deception_rows(head, student_BK, teacher_BK).sum().backward()
    guess_B = torch.sigmoid(head(student_BK.detach())).squeeze(1)
    expected_BK = -0.5 * guess_B[:, None] * head.weight
    assert torch.allclose(student_BK.grad, expected_BK)


@pytest.mark.parametrize(("classes", "widths"), [(5, [16, 16, 1]), (1000, [125, 16, 1])])
def test_widths_of_the_discriminator(classes: int, widths: list[int]) -> None:
    setting = dataclasses.replace(SETTING, num_classes=classes)
    term = MEAL(MEALTerm(kind="meal", discriminator=True), setting)
    weights = [value for name, value in term.named_parameters() if name.endswith("weight")]
    assert [weight.shape[0] for weight in weights] == widths


def test_without_a_discriminator_nothing_learns_along() -> None:
    assert list(MEAL(MEALTerm(kind="meal"), SETTING).parameters()) == []
