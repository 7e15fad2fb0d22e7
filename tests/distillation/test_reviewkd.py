"""ReviewKD: how wide its heads are, and how they begin."""

from __future__ import annotations

import pytest
from torch import nn

from edgekd.distillation.reviewkd import ReviewKD
from edgekd.distillation.setting import Role, Setting
from edgekd.documents.terms.features import ReviewKDTerm

TEACHER = {"stage1": (32, 8, 8), "stage2": (24, 4, 4), "pool": (40,)}


def term(deepest: int) -> ReviewKD:
    student = {"stage1": (5, 8, 8), "stage2": (7, 4, 4), "pool": (deepest,)}
    roles = [Role("student", nn.Identity(), student), Role("teacher", nn.Identity(), TEACHER)]
    setting = Setting(roles[0], {"teacher": roles[1]}, num_classes=5, count=8, views=("weak",))
    return ReviewKD(ReviewKDTerm(kind="reviewkd"), setting)


@pytest.mark.parametrize(("deepest", "middle"), [(9, 9), (1280, 512)])
def test_heads_meet_at_the_width_of_the_deepest_stage(deepest: int, middle: int) -> None:
    shapes = {name: tuple(value.shape) for name, value in term(deepest).named_parameters() if value.ndim == 4}
    assert shapes == {
        "fusions.0.narrow.0.weight": (middle, 5, 1, 1),
        "fusions.0.answer.0.weight": (32, middle, 3, 3),
        "fusions.0.gate.0.weight": (2, 2 * middle, 1, 1),
        "fusions.1.narrow.0.weight": (middle, 7, 1, 1),
        "fusions.1.answer.0.weight": (24, middle, 3, 3),
        "fusions.1.gate.0.weight": (2, 2 * middle, 1, 1),
        "fusions.2.narrow.0.weight": (middle, deepest, 1, 1),
        "fusions.2.answer.0.weight": (40, middle, 3, 3),
    }


def test_weights_begin_uniform_with_the_variance_of_their_inputs() -> None:
    for name, weight in term(64).named_parameters():
        if weight.ndim == 4 and ".gate." not in name:
            limit = (3 / weight[0].numel()) ** 0.5  # of a uniform distribution with variance 1 / inputs
            assert 0.8 * limit < weight.abs().max() <= limit
