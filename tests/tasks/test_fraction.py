"""A fraction of the training split: stratified, seeded, and all that goes with an example goes along."""

from __future__ import annotations

import numpy as np
import pytest

from edgekd.tasks.fraction import fraction_of
from edgekd.tasks.make import make_task

X = np.random.default_rng(0).integers(0, 256, (200, 6)).astype(np.uint8)
Y = np.repeat([0, 1, 2], [120, 60, 20])


def make(**settings):
    return make_task(
        "own",
        train=(X, Y),
        test=(X[::-7].copy() ^ 1, Y[::-7]),
        layout="NC",
        validation_fraction=0.5,
        seed=0,
        **settings,
    )


def counts(task):
    return {int(label): int((task.train.y == label).sum()) for label in np.unique(task.train.y)}


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1])
def test_each_class_keeps_its_share(fraction):
    part = fraction_of(make(), fraction, seed=3)
    assert counts(part) == {0: round(60 * fraction), 1: round(30 * fraction), 2: max(1, round(10 * fraction))}


def test_an_example_keeps_its_label_and_its_row():
    part = fraction_of(make(), 0.5, seed=3)
    for x, y, row in zip(part.train.x, part.train.y, part.train.rows, strict=True):
        assert np.array_equal(x, X[row])
        assert y == Y[row]
    assert len(set(part.train.rows)) == len(part.train.rows)


def test_only_the_training_split_shrinks():
    task = make()
    part = fraction_of(task, 0.5, seed=3)
    assert part.validation is task.validation
    assert part.test is task.test
    assert part.input == task.input
    assert part.classes == task.classes


def test_the_seed_chooses_and_the_fingerprint_tells():
    task = make()
    first, again, other = (fraction_of(task, 0.5, seed=seed) for seed in (3, 3, 4))
    assert first.fingerprint == again.fingerprint
    assert len({task.fingerprint, first.fingerprint, other.fingerprint}) == 3


def test_everything_is_the_task_itself():
    task = make()
    assert fraction_of(task, 1.0, seed=3) is task


def test_a_pool_is_thinned_in_proportion():
    pool = np.random.default_rng(5).integers(0, 256, (40, 6)).astype(np.uint8)
    part = fraction_of(make(unlabeled=pool), 0.25, seed=3)
    assert counts(part) == {-1: 10, 0: 15, 1: 8, 2: 2}
