"""Decoupled distillation: how it is related to plain KD, what is hard in its numbers, its ramp."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.dkd import dkd_rows
from edgekd.distillation.kd import kd_rows
from edgekd.documents.terms.logits import DKDTerm

LABELS_B = torch.tensor([0, 4, 2, 2, 1, 3])


def drawn(seed: int, classes: int = 5) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(6, classes, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("standardize", [False, True])
def test_plain_kd_is_the_sum_of_its_two_parts(standardize: bool) -> None:
    student_BK, teacher_BK = drawn(0), drawn(1)
    options = {"temperature": 3.0, "standardize": standardize}
    target_B = dkd_rows(student_BK, teacher_BK, LABELS_B, alpha=1.0, beta=0.0, **options)
    others_B = dkd_rows(student_BK, teacher_BK, LABELS_B, alpha=0.0, beta=1.0, **options)
    row = (teacher_BK - teacher_BK.mean(1, keepdim=True)) / teacher_BK.std(1, keepdim=True)
    sure_B = ((row if standardize else teacher_BK) / 3.0).softmax(dim=1)[range(6), LABELS_B]
    expected_B = kd_rows(student_BK, teacher_BK, **options)
    assert (target_B + (1 - sure_B) * others_B).tolist() == pytest.approx(expected_B.tolist(), rel=1e-6)


def test_the_label_stays_out_of_the_other_classes_however_sure_a_network_is() -> None:
    """Subtracting 1000 from the label's logit would leave it the largest of all."""
    teacher_BK = torch.tensor([[30_000.0, 2.0, 1.0, 0.0]], dtype=torch.float16)
    student_BK = torch.tensor([[30_000.0, 0.0, 1.0, 2.0]], dtype=torch.float16, requires_grad=True)
    loss_B = dkd_rows(student_BK, teacher_BK, torch.tensor([0]), alpha=0.0, beta=1.0, temperature=1.0)
    p = torch.tensor([2.0, 1.0, 0.0], dtype=torch.float64).softmax(dim=0)
    expected = (p * (p.log() - p.flip(0).log())).sum().item()
    assert loss_B.item() == pytest.approx(expected, rel=5e-3)
    loss_B.sum().backward()
    assert student_BK.grad[0].tolist() == pytest.approx([0.0, *(p.flip(0) - p).tolist()], abs=2e-3)


def test_two_classes_have_no_others_to_compare() -> None:
    student_BK = drawn(0, classes=2).requires_grad_()
    loss_B = dkd_rows(student_BK, drawn(1, 2), LABELS_B % 2, alpha=0.0, beta=8.0, temperature=4.0)
    loss_B.sum().backward()
    assert loss_B.tolist() == [0.0] * 6
    assert student_BK.grad.abs().max().item() == 0.0


def test_by_default_its_weight_grows_over_twenty_epochs() -> None:
    section = DKDTerm(kind="dkd")
    weights = [section.weight_at(epoch, 240) for epoch in (1, 10, 20, 240)]
    assert weights == pytest.approx([0.05, 0.5, 1.0, 1.0])
