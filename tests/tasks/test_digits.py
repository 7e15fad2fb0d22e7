"""The digits: real images, and the figures that are known of them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from edgekd.documents.recipe import DigitsTask
from edgekd.errors import DataError, MissingError
from edgekd.tasks.task import build_task


def build(seed=0, **settings):
    return build_task(DigitsTask(**settings), base_dir=Path("."), seed=seed)


def test_the_figures():
    task = build()
    parts = (task.train, task.validation, task.test)
    assert sum(len(part.y) for part in parts) == 1797
    assert [len(part.y) for part in parts] == [1132, 126, 539]
    assert task.classes == tuple("0123456789")
    assert (task.input_shape, task.input.layout, task.input.raw_dtype) == ((1, 8, 8), "NCHW", "uint8")
    assert {part.x.dtype for part in parts} == {np.dtype(np.uint8)}
    assert max(part.x.max() for part in parts) == 16
    everything = np.concatenate([part.x for part in parts])
    assert everything.mean() == pytest.approx(4.8841645798, abs=1e-9)


def test_every_class_is_in_every_part_in_proportion():
    task = build()
    whole = np.bincount(np.concatenate([part.y for part in (task.train, task.validation, task.test)]))
    assert whole.tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert np.abs(np.bincount(task.test.y) - 0.3 * whole).max() <= 1
    assert np.abs(np.bincount(task.validation.y) - 0.07 * whole).max() <= 1


def test_the_seed_decides_the_split():
    assert build().fingerprint == build().fingerprint
    assert build().fingerprint != build(seed=1).fingerprint


def test_too_little_for_training():
    with pytest.raises(DataError) as caught:
        build(test_fraction=0.999)
    assert (
        str(caught.value) == "digits: train: class 0 has 1 example (and 9 more); a stratified split needs 2"
    )


def test_without_scikit_learn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingError) as caught:
        build()
    assert caught.value.hint == "pip install 'edgekd[train]'"
