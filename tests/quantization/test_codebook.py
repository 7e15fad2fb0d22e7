"""Codes and codebooks: the published formulas, and the cases that they do not speak of."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.errors import ConversionError
from edgekd.quantization.codebook import Codebook, bits_of, encode, nearest_points, uniform_codes
from edgekd.quantization.levels import quantile_points
from tests.quantization.codebook_cases import buckets, codebooks, numpy_weight, same_bits, weights


@settings(deadline=None, max_examples=60)
@given(weights, st.integers(1, 8), buckets)
def test_uniform_codes_by_the_formula(w: np.ndarray, bits: int, bucket: int | None) -> None:
    book = encode(torch.from_numpy(w), levels=2**bits, bucket=bucket, name="w")
    assert same_bits(book.decode(), torch.from_numpy(numpy_weight(w, 2**bits, bucket, None)))
    assert book.bits == bits


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.integers(2, 40), buckets)
def test_learned_points_by_the_formula(seed: int, levels: int, bucket: int | None) -> None:
    random = np.random.default_rng(seed)
    w = random.normal(size=(5, 3, 3)).astype(np.float32)
    points = np.sort(random.uniform(-0.2, 1.2, levels)).astype(np.float32)
    book = encode(
        torch.from_numpy(w), levels=levels, bucket=bucket, points_S=torch.from_numpy(points), name="w"
    )
    assert same_bits(book.decode(), torch.from_numpy(numpy_weight(w, levels, bucket, points)))


@settings(deadline=None, max_examples=60)
@given(codebooks())
def test_what_a_codebook_holds(book: Codebook) -> None:
    count = int(np.prod(book.shape))
    assert book.codes_N.dtype == torch.uint8
    assert len(book.codes_N) == count
    assert bool((book.codes_N.int() < book.levels).all())
    assert len(book.alpha_B) == len(book.beta_B) == -(-count // book.bucket)
    assert book.decode().shape == book.shape


@settings(deadline=None, max_examples=40)
@given(weights, buckets)
def test_the_error_is_at_most_half_a_step_of_the_bucket(w: np.ndarray, bucket: int | None) -> None:
    book = encode(torch.from_numpy(w), levels=16, bucket=bucket, name="w")
    error = np.abs(book.decode().double().numpy() - w).reshape(-1)
    step_N = np.repeat(book.alpha_B.double().numpy() / 15, book.bucket)[: w.size]
    largest = np.abs(w).max(initial=0.0)
    assert (error <= step_N / 2 + 1e-6 * largest).all()


@pytest.mark.parametrize("value", [0.0, -3.25, 1e-38, 2.0**-149])
def test_a_bucket_of_one_value_is_kept_exactly(value: float) -> None:
    w = torch.full((2, 7), value)
    for points_S in (None, torch.tensor([0.25, 0.5])):
        book = encode(w, levels=2, bucket=4, points_S=points_S, name="w")
        assert torch.equal(book.decode(), w)


def test_each_bucket_has_its_own_range() -> None:
    w = torch.tensor([0.0, 1.0, 2.0, 3.0, 100.0, 200.0, 250.0, 300.0])
    book = encode(w, levels=4, bucket=4, name="w")
    assert book.alpha_B.tolist() == [3.0, 200.0]
    assert book.beta_B.tolist() == [0.0, 100.0]
    assert book.codes_N.tolist() == [0, 1, 2, 3, 0, 2, 2, 3]
    assert encode(w, levels=4, bucket=None, name="w").alpha_B.tolist() == [300.0]


def test_a_bucket_that_is_not_full_has_the_range_of_what_it_holds() -> None:
    book = encode(torch.tensor([0.0, 1.0, 2.0, 5.0, 7.0]), levels=2, bucket=3, name="w")
    assert book.alpha_B.tolist() == [2.0, 2.0]
    assert book.beta_B.tolist() == [0.0, 5.0]
    assert book.codes_N.tolist() == [0, 0, 1, 0, 1]  # 0.5 is half to even


def test_a_layout_in_memory_changes_nothing() -> None:
    w = torch.randn(4, 6, 3, 3, generator=torch.Generator().manual_seed(0))
    last = w.contiguous(memory_format=torch.channels_last)
    one, other = (encode(x, levels=8, bucket=16, name="w") for x in (w, last))
    assert torch.equal(one.codes_N, other.codes_N)
    assert torch.equal(one.decode(), other.decode())


def test_equally_near_points() -> None:
    assert uniform_codes(torch.tensor([[0.125, 0.375]]), 5).tolist() == [[0.0, 2.0]]
    points_S = torch.tensor([0.0, 0.5, 1.0])
    assert nearest_points(torch.tensor([[0.25, 0.75, -9.0, 9.0]]), points_S).tolist() == [[1, 2, 0, 2]]


def test_points_that_are_the_same_are_no_trouble() -> None:
    points_S = torch.tensor([0.0, 0.5, 0.5, 0.5, 1.0])
    values = torch.tensor([[0.1, 0.5, 0.74, 0.9]])
    assert points_S[nearest_points(values, points_S)].tolist() == [[0.0, 0.5, 0.5, 1.0]]


def test_bits_of_a_code() -> None:
    assert bits_of(2) == 1
    assert all(2 ** (bits_of(levels) - 1) < levels <= 2 ** bits_of(levels) for levels in range(3, 257))


@pytest.mark.parametrize(
    ("w", "message"),
    [
        (torch.tensor([1.0, torch.nan]), "w: holds a value that is not finite"),
        (torch.tensor([1.0, -torch.inf]), "w: holds a value that is not finite"),
        (torch.tensor([3e38, -3e38]), "w: its values lie further apart than float32 can say"),
        (torch.zeros(2, dtype=torch.float64), "w: is float64; float32 is wanted"),
    ],
)
def test_what_cannot_be_coded_is_refused(w: torch.Tensor, message: str) -> None:
    with pytest.raises(ConversionError) as caught:
        encode(w, levels=4, bucket=None, name="w")
    assert str(caught.value) == message


def test_a_codebook_does_not_follow_what_it_was_made_of() -> None:
    w, points_S = torch.tensor([0.0, 0.4, 1.0]), torch.tensor([0.0, 1.0])
    book = encode(w, levels=2, bucket=None, points_S=points_S, name="w")
    before = book.decode()
    w.zero_()
    points_S.zero_()
    assert torch.equal(book.decode(), before)


def test_quantiles_are_interpolated() -> None:
    values = torch.tensor([4.0, 0.0, 1.0, 2.0])
    assert quantile_points(values, 7).tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0]
    assert quantile_points(torch.zeros(0), 3).tolist() == [0.0, 0.5, 1.0]
    assert quantile_points(torch.ones(4), 3).dtype == torch.float32
