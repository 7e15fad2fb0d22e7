"""NKD: what pulls at a student that equals its teacher."""

from __future__ import annotations

import pytest
import torch

from edgekd.distillation.nkd import nkd_rows


def test_at_the_teacher_only_the_label_pulls() -> None:
    generator = torch.Generator().manual_seed(0)
    teacher_BK = torch.randn(4, 5, generator=generator, dtype=torch.float64)
    labels_B = torch.tensor([3, 0, 4, 1])
    student_BK = teacher_BK.clone().requires_grad_()
    nkd_rows(student_BK, teacher_BK, labels_B, gamma=2.0, temperature=3.0).sum().backward()
    p_BK = teacher_BK.softmax(dim=1)
    for gradient_K, p_K, label in zip(student_BK.grad, p_BK, labels_B.tolist(), strict=True):
        expected = [p_K[label].item() * (p_K[k].item() - (k == label)) for k in range(5)]
        assert gradient_K.tolist() == pytest.approx(expected, abs=1e-12)
