"""RKD: parts of the angles, examples that coincide, and gradients that stay of ordinary size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekd.distillation.rkd import angle_loss, distance_loss


def rows(count: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, width, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("at_once", [1, 7 * 12 * 2, 7 * 12 * 3, 7 * 12 * 6])
def test_the_angles_in_parts_are_those_at_once(at_once: int) -> None:
    student, teacher = rows(7, 5, 0).requires_grad_(), rows(7, 3, 1)
    whole = angle_loss(student, teacher)
    (expected,) = torch.autograd.grad(whole, student)
    in_parts = angle_loss(student, teacher, at_once=at_once)
    (found,) = torch.autograd.grad(in_parts, student)
    assert in_parts.item() == pytest.approx(whole.item(), rel=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-14)


def test_parts_take_less_memory_than_the_whole() -> None:
    student, teacher = rows(64, 8, 0).requires_grad_(), rows(64, 8, 1)
    kept: dict[bool, int] = {}
    for in_parts in (False, True):
        sizes: list[int] = []

        def pack(value: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(value.numel())
            return value

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
            angle_loss(student, teacher, at_once=64 * 72 if in_parts else 2**24)
        kept[in_parts] = sum(sizes)
    assert kept[False] > 64**3
    assert kept[True] < 64 * 64 * 4


def test_scale_and_place_of_a_network_do_not_matter() -> None:
    student, teacher = rows(6, 4, 0), rows(6, 9, 1)
    moved = 7.0 * teacher - 3.0
    assert distance_loss(student, moved).item() == pytest.approx(distance_loss(student, teacher).item())
    assert angle_loss(student, moved).item() == pytest.approx(angle_loss(student, teacher).item())


@pytest.mark.parametrize("apart", [0.0, 1e-12, 1e-6, 1e-4])
def test_examples_that_nearly_coincide_keep_the_gradient_bounded(apart: float) -> None:
    student, teacher = rows(6, 4, 0), rows(6, 4, 1)
    student[1] = student[0] + apart
    student.requires_grad_()
    loss = 25 * distance_loss(student, teacher) + 50 * angle_loss(student, teacher)
    loss.backward()
    assert student.grad is not None
    assert student.grad.abs().max() < 100
    assert student.grad[0].abs().sum() > 0


def test_a_small_triangle_is_seen_where_all_are_close() -> None:
    student, teacher = 1e-6 * rows(5, 3, 0), rows(5, 3, 1)
    assert angle_loss(student, teacher).item() == pytest.approx(angle_loss(1e6 * student, teacher).item())
