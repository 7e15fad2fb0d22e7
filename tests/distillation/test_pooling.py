"""A feature as one vector an example, of every layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from edgekd.distillation.pooling import vector_at
from edgekd.distillation.setting import Role
from edgekd.distillation.step import Answer
from edgekd.errors import UsageError


class Nhwc(nn.Module):
    """Says, as timm's networks do, that its stages give (N, H, W, C)."""

    output_fmt = "NHWC"


def role(shape: tuple[int, ...], network: nn.Module | None = None) -> Role:
    return Role("student", network or nn.Identity(), {"stage1": shape})


def check(found: Role, feature_B: Tensor, expected_BC: Tensor) -> None:
    vector = vector_at(found, "stage1", wanted_by="crd")
    assert vector.width == expected_BC.shape[1]
    torch.testing.assert_close(vector.mean(feature_B), expected_BC)


def test_a_vector_stays_as_it_is() -> None:
    feature_BC = torch.randn(3, 5)
    check(role((5,)), feature_BC, feature_BC)


def test_a_map_is_averaged_over_its_positions() -> None:
    feature_BCHW = torch.randn(3, 5, 2, 4)
    check(role((5, 2, 4)), feature_BCHW, feature_BCHW.sum((2, 3)) / 8)
    check(role((2, 4, 5), Nhwc()), feature_BCHW.permute(0, 2, 3, 1), feature_BCHW.sum((2, 3)) / 8)


def test_tokens_are_averaged_and_a_series_is_averaged_along_time() -> None:
    feature_BTC = torch.randn(3, 7, 5)
    check(role((7, 5)), feature_BTC, feature_BTC.sum(1) / 7)
    check(role((7, 5), nn.Conv1d(2, 7, 3)), feature_BTC, feature_BTC.sum(2) / 5)


def test_reads_the_view_that_is_asked_for() -> None:
    rows_RC = torch.arange(12.0).view(4, 3)
    answer = Answer(torch.zeros(4, 2), {"stage1": rows_RC}, ("weak", "strong"))
    vector = vector_at(role((3,)), "stage1", wanted_by="crd")
    assert vector.of(answer).tolist() == rows_RC[:2].tolist()
    assert vector.of(answer, "strong").tolist() == rows_RC[2:].tolist()


def test_a_tap_that_does_not_exist() -> None:
    with pytest.raises(UsageError) as caught:
        vector_at(role((3,)), "stage2", wanted_by="crd")
    assert str(caught.value) == (
        "term crd: reads the tap 'stage2', which the student does not have; did you mean 'stage1'?\n"
        "  try: one of the student's taps: stage1"
    )
