"""Products of bytes as AVX2 makes them, against the definition in whole numbers, pair by pair."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edgekd.conversion.avx2 import products
from edgekd.conversion.avx2.products import can_saturate, multiply

Bytes = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int8]]

CODES = st.one_of(st.sampled_from([0, 254, 255]), st.integers(0, 255))
WEIGHTS = st.one_of(st.sampled_from([-128, -127, 0, 127]), st.integers(-128, 127))


@st.composite
def operands(draw: st.DrawFn, weights: st.SearchStrategy[int] = WEIGHTS) -> Bytes:
    """Codes (M, K) and weights (K, N), extremes as often as all others."""
    m, k, n = draw(st.integers(1, 4)), draw(st.integers(1, 7)), draw(st.integers(1, 3))
    codes = draw(arrays.arrays(np.uint8, (m, k), elements=CODES))
    return codes, draw(arrays.arrays(np.int8, (k, n), elements=weights))


def by_definition(codes_MK: np.ndarray, weights_KN: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Sums, pairs and saturated pairs, one product after the other in Python's own numbers."""
    (count, depth), width = codes_MK.shape, weights_KN.shape[1]
    sums, pairs, saturated = np.zeros((count, width), np.int64), 0, 0
    for m in range(count):
        for n in range(width):
            products = [int(codes_MK[m, k]) * int(weights_KN[k, n]) for k in range(depth)]
            for first in range(0, depth, 2):
                pair = sum(products[first : first + 2])
                clipped = max(-32768, min(32767, pair))
                sums[m, n] += clipped
                pairs, saturated = pairs + 1, saturated + (pair != clipped)
    return sums, pairs, saturated


@settings(deadline=None, max_examples=100)
@given(operands())
def test_products_by_the_definition(operands: Bytes) -> None:
    sums, pairs, saturated = by_definition(*operands)
    found = multiply(*operands)
    assert found.sums.dtype == np.int32
    np.testing.assert_array_equal(found.sums, sums)
    assert (found.pairs, found.saturated) == (pairs, saturated)


@settings(deadline=None, max_examples=50)
@given(operands(), st.integers(0, 255), st.data())
def test_zero_points_are_taken_out_of_the_clipped_sums(
    operands: Bytes, zero: int, data: st.DataObject
) -> None:
    codes, weights = (one.astype(np.int64) for one in operands)
    zeros = data.draw(arrays.arrays(np.int8, weights.shape[1], elements=WEIGHTS)).astype(np.int64)
    exact = (codes - zero) @ (weights - zeros)
    lost = codes @ weights - by_definition(*operands)[0]
    for saturate, expected in ((False, exact), (True, exact - lost)):
        found = multiply(*operands, zero=zero, weight_zeros=zeros, saturate=saturate)
        np.testing.assert_array_equal(found.sums, expected)
    assert multiply(*operands, saturate=False).saturated == 0


def test_a_long_sum_is_exact() -> None:
    codes, weights = np.full((2, 50_001), 255, np.uint8), np.full((50_001, 2), -128, np.int8)
    codes[1, ::3], weights[::5, 1] = 254, -127
    expected = codes.astype(np.int64) @ weights.astype(np.int64)
    np.testing.assert_array_equal(multiply(codes, weights, saturate=False).sums, expected)
    assert multiply(codes, weights).sums[0, 0] == 25_000 * -32768 + 255 * -128


def test_rows_may_be_multiplied_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    codes = random.integers(0, 256, (23, 9)).astype(np.uint8)
    weights = random.integers(-128, 128, (9, 4)).astype(np.int8)
    whole = multiply(codes, weights)
    monkeypatch.setattr(products, "_CHUNK", 30)
    parts = multiply(codes, weights)
    np.testing.assert_array_equal(parts.sums, whole.sums)
    assert (parts.pairs, parts.saturated) == (whole.pairs, whole.saturated)
    assert whole.saturated > 0


@pytest.mark.parametrize(
    ("pair", "answer"),
    [
        ((127, 127), 32767),
        ((127, 1), 32640),
        ((127, 2), 32767),
        ((-128, -128), -32768),
        ((-128, 0), -32640),
        ((-128, -1), -32768),
        ((127, -128), -255),
    ],
)
def test_the_edges_of_16_bits(pair: tuple[int, int], answer: int) -> None:
    codes, weights = np.full((1, 2), 255, np.uint8), np.array([pair], np.int8).T
    found = multiply(codes, weights)
    assert found.sums.item() == answer
    assert found.saturated == (answer in (32767, -32768))
    assert can_saturate(weights) == (answer in (32767, -32768))


@settings(deadline=None, max_examples=100)
@given(operands())
def test_weights_can_saturate_when_some_codes_make_them(operands: Bytes) -> None:
    weights = operands[1]
    signed = weights.T.astype(int)
    worst = np.concatenate([np.where(sign * signed > 0, 255, 0) for sign in (1, -1)]).astype(np.uint8)
    assert can_saturate(weights) == (multiply(worst, weights).saturated > 0)


@settings(deadline=None, max_examples=50)
@given(operands(weights=st.integers(-64, 64)))
def test_weights_of_seven_bits_never_saturate(operands: Bytes) -> None:
    """2 x 255 x 64 = 32640."""
    codes, weights = operands
    assert not can_saturate(weights)
    found = multiply(codes, weights)
    assert found.saturated == 0
    np.testing.assert_array_equal(found.sums, codes.astype(np.int64) @ weights.astype(np.int64))
