"""Points shared out by gradient."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantization.levels import share_out_levels

norms = st.lists(st.floats(0, 1e6), min_size=1, max_size=12)


@settings(deadline=None, max_examples=100)
@given(norms, st.integers(2, 256))
def test_the_sum_stays_and_half_is_sure(norms: list[float], levels: int) -> None:
    given_out = share_out_levels(norms, levels)
    assert sum(given_out) == levels * len(norms)
    assert all(max(2, levels // 2) <= one <= 256 for one in given_out)


@settings(deadline=None, max_examples=100)
@given(norms, st.integers(2, 64))
def test_a_larger_gradient_never_gets_fewer(norms: list[float], levels: int) -> None:
    given_out = share_out_levels(norms, levels)
    ranked = sorted(zip(norms, given_out, strict=True))
    for (norm, points), (larger, more) in itertools.pairwise(ranked):
        assert norm == larger or points <= more


def test_the_other_half_goes_by_the_gradient() -> None:
    assert share_out_levels([3.0, 1.0, 0.0], 16) == (8 + 18, 8 + 6, 8)
    assert share_out_levels([1.0, 1.0], 16) == (16, 16)
    assert share_out_levels([0.0, 0.0, 0.0], 5) == (5, 5, 5)


def test_what_rounding_leaves_goes_to_the_largest_remainder() -> None:
    # 6 to share out: 1.5, 1.8, 2.7
    assert share_out_levels([5.0, 6.0, 9.0], 4) == (2 + 1, 2 + 2, 2 + 3)


def test_none_gets_more_than_a_byte_can_number() -> None:
    assert share_out_levels([1e9, 1.0, 1.0], 200) == (256, 172, 172)
