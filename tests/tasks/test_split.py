"""Properties of the stratified split."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from edgekd.tasks.split import stratified_split

sizes = st.lists(st.integers(2, 40), min_size=1, max_size=8)
fractions = st.floats(0.01, 0.99)
seeds = st.integers(0, 2**31 - 1)


def labels(sizes, seed):
    y = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(seed).permutation(y)


@given(sizes, fractions, seeds)
def test_parts_are_disjoint_and_cover_all(sizes, fraction, seed):
    y = labels(sizes, seed)
    kept, held = stratified_split(y, fraction, seed)
    assert np.array_equal(np.sort(np.concatenate([kept, held])), np.arange(len(y)))
    assert (np.diff(kept) > 0).all()
    assert (np.diff(held) > 0).all()


@given(sizes, fractions, seeds)
def test_every_class_keeps_its_proportion_within_one_example(sizes, fraction, seed):
    y = labels(sizes, seed)
    kept, held = stratified_split(y, fraction, seed)
    for label, size in enumerate(sizes):
        held_of_class = int((y[held] == label).sum())
        assert abs(held_of_class - fraction * size) <= 1
        assert 1 <= held_of_class <= size - 1
        assert int((y[kept] == label).sum()) == size - held_of_class


@given(sizes, fractions, seeds)
def test_the_seed_alone_decides(sizes, fraction, seed):
    y = labels(sizes, seed)
    first, second = stratified_split(y, fraction, seed), stratified_split(y, fraction, seed)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_another_seed_holds_out_others():
    y = np.repeat(np.arange(4), 50)
    _, first = stratified_split(y, 0.2, 0)
    _, second = stratified_split(y, 0.2, 1)
    assert len(first) == len(second) == 40
    assert not np.array_equal(first, second)


def test_every_example_of_a_class_is_as_likely():
    y = np.zeros(10, dtype=np.int64)
    times = np.zeros(10)
    for seed in range(2000):
        times[stratified_split(y, 0.3, seed)[1]] += 1
    # 0.3 of 2000 seeds; five standard deviations of a binomial count are 102.
    assert np.abs(times - 600).max() < 102


def test_labels_need_no_order_and_no_zero():
    y = np.array([9, 5, 9, 5, 9, 9])
    kept, held = stratified_split(y, 0.5, 0)
    assert sorted(y[held]) == [5, 9, 9]
    assert sorted(y[kept]) == [5, 9, 9]
