from __future__ import annotations

import numpy as np
import pytest

from edgekd.conversion.parity import compare_logits
from edgekd.errors import ConversionError


def test_each_figure_by_hand() -> None:
    reference_NK = np.array([[0.0, 1.0], [3.0, 2.0], [0.0, 4.0], [1.0, 0.0]], np.float32)
    other_NK = np.array([[0.0, 1.5], [2.0, 2.5], [0.0, 4.0], [1.0, 0.0]], np.float32)
    parity = compare_logits(reference_NK, other_NK)
    assert parity.count == 4
    assert parity.top1_agreement == 0.75
    assert parity.mean_difference == pytest.approx((0.5 + 1.0 + 0.5) / 8)
    assert parity.max_difference == 1.0
    values = [0, 1, 3, 2, 0, 4, 1, 0]
    mean = sum(values) / 8
    assert parity.logit_std == pytest.approx((sum((value - mean) ** 2 for value in values) / 8) ** 0.5)


def test_equal_logits_agree_in_everything() -> None:
    logits_NK = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    parity = compare_logits(logits_NK, logits_NK.copy())
    assert (parity.top1_agreement, parity.mean_difference, parity.max_difference) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("one", "other", "message"),
    [
        ((2, 3), (2, 4), "cannot compare logits of shapes (2, 3) and (2, 4)"),
        ((0, 3), (0, 3), "cannot compare logits of shapes (0, 3) and (0, 3)"),
        ((6,), (6,), "cannot compare logits of shapes (6,) and (6,)"),
    ],
)
def test_what_cannot_be_compared(one: tuple[int, ...], other: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        compare_logits(np.zeros(one), np.zeros(other))
    assert str(caught.value) == message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    logits_NK = np.zeros((2, 2), np.float32)
    broken_NK = logits_NK.copy()
    broken_NK[1, 1] = bad
    for pair in ((logits_NK, broken_NK), (broken_NK, logits_NK)):
        with pytest.raises(ConversionError, match=r"^cannot compare logits: some are not finite numbers$"):
            compare_logits(*pair)
