"""DIST where probabilities are tiny or do not vary."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.dist import DIST, correlations, dist_loss


def drawn(seed: int, scale: float) -> torch.Tensor:
    return scale * torch.randn(6, 5, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_zero_for_a_sure_student_that_equals_its_teacher(scale: float) -> None:
    """Most of these probabilities are below what float32 holds; a constant in the norms would show."""
    logits_BK = drawn(0, scale)
    assert dist_loss(logits_BK, logits_BK).item() == pytest.approx(0.0, abs=1e-5)


def test_classes_that_no_example_of_the_batch_has_count_like_the_others() -> None:
    plain_RN = torch.tensor([[0.1, 0.3, 0.2, 0.4]]).log()
    tiny_RN = plain_RN - 60.0
    other_RN = torch.tensor([[0.2, 0.1, 0.4, 0.3]]).log()
    assert correlations(plain_RN, other_RN).item() == pytest.approx(0.0, abs=1e-6)
    bent_RN = torch.tensor([[0.1, 0.3, 0.2, 0.9]]).log()
    assert correlations(plain_RN, tiny_RN).item() == pytest.approx(1.0)
    assert correlations(tiny_RN, bent_RN).item() == pytest.approx(correlations(plain_RN, bent_RN).item())


def test_a_teacher_without_any_preference_teaches_nothing() -> None:
    student_BK = drawn(0, 1.0).requires_grad_()
    loss = dist_loss(student_BK, torch.full((6, 5), 0.7), beta=2.0, gamma=3.0)
    loss.backward()
    assert loss.item() == pytest.approx(5.0)
    assert student_BK.grad.abs().max().item() == 0.0


def test_a_student_without_any_preference_gets_no_gradient_rather_than_a_huge_one() -> None:
    student_BK = torch.zeros(6, 5, requires_grad=True)
    dist_loss(student_BK, drawn(0, 1.0)).backward()
    assert student_BK.grad.abs().max().item() == 0.0


def test_asks_for_the_examples_that_a_correlation_over_the_batch_needs() -> None:
    assert DIST.smallest_batch == 3
