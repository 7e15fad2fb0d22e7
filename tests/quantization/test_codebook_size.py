"""What codebooks weigh, and Huffman's code."""

from __future__ import annotations

import heapq
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantization.codebook import Codebooks, encode
from edgekd.quantization.codebook_size import code_frequencies, huffman_lengths, size_of

frequencies = st.dictionaries(st.integers(0, 255), st.integers(1, 10**6), min_size=2, max_size=60)


@settings(deadline=None, max_examples=100)
@given(frequencies)
def test_a_code_of_least_redundancy(counts: dict[int, int]) -> None:
    lengths = huffman_lengths(counts)
    assert sum(2.0**-length for length in lengths.values()) == 1.0  # Kraft: no code word is wasted
    total = sum(counts.values())
    entropy = -sum(count / total * math.log2(count / total) for count in counts.values())
    mean = sum(counts[symbol] * length for symbol, length in lengths.items()) / total
    assert entropy - 1e-9 <= mean < entropy + 1
    assert mean * total == pytest.approx(_least_cost(counts))


def _least_cost(counts: dict[int, int]) -> int:
    """Sum of all inner nodes of the optimal tree: the total length of the coded message."""
    heap, cost = sorted(counts.values()), 0
    while len(heap) > 1:
        pair = heapq.heappop(heap) + heapq.heappop(heap)
        cost += pair
        heapq.heappush(heap, pair)
    return cost


def test_known_lengths() -> None:
    assert huffman_lengths({0: 8, 1: 4, 2: 2, 3: 1, 4: 1}) == {0: 1, 1: 2, 2: 3, 3: 4, 4: 4}
    assert huffman_lengths({7: 10}) == {7: 0}
    assert huffman_lengths({}) == {}


def small() -> Codebooks:
    first = encode(torch.tensor([[0.0, 0.0, 0.0, 3.0], [0.0, 1.0, 2.0, 3.0]]), levels=4, bucket=4, name="a")
    points_S = torch.tensor([0.0, 0.1, 1.0])
    second = encode(torch.tensor([0.0, 1.0]), levels=3, bucket=None, points_S=points_S, name="b")
    return Codebooks({"a": first, "b": second}, {"bias": torch.zeros(3), "count": torch.tensor(5)})


def test_frequencies_are_over_all_tensors() -> None:
    assert code_frequencies(small()) == {0: 5, 1: 1, 2: 2, 3: 2}


def test_sizes_by_hand() -> None:
    size = size_of(small())
    plain = 3 * 4 + 8
    ranges = 4 * (2 * 2 + 2 * 1 + 3)
    assert size.weights == 10
    assert size.plain_bytes == plain
    assert size.float_bytes == plain + 40
    assert size.packed_bytes == plain + ranges + 2 + 1  # 8 codes of 2 bits, 2 codes of 2 bits
    # Lengths 1, 3, 3, 2: 5 + 3 + 6 + 4 = 18 bits, or another tree of the same 18.
    assert size.mean_bits == pytest.approx(1.8)
    assert size.huffman_bytes == plain + ranges + 3 + 4
    assert size.summary()["packed_bytes"] == size.packed_bytes


def test_nothing_in_codes_weighs_nothing() -> None:
    size = size_of(Codebooks({}, {"bias": torch.zeros(3)}))
    assert (size.weights, size.mean_bits, size.packed_bytes, size.huffman_bytes) == (0, 0.0, 12, 12)
