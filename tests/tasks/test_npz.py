"""Tasks in .npz files, and every way in which such a file can be unusable."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from edgekd.documents.recipe import Augmentation, NpzTask
from edgekd.errors import DataError
from edgekd.tasks.task import build_task

X = np.random.default_rng(0).integers(0, 256, (40, 9, 8)).astype(np.uint8)
Y = np.arange(40) % 4


@pytest.fixture
def folder(tmp_path):
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    np.savez_compressed(tmp_path / "test.npz", x=X[:8], y=Y[:8].astype(np.uint8), z=[1])
    return tmp_path


def build(folder, **settings):
    section = NpzTask(name="npz", **{"train": "train.npz", "test": "test.npz", "layout": "NHW"} | settings)
    return build_task(section, base_dir=folder, seed=3)


def refusal(folder, **settings):
    with pytest.raises(DataError) as caught:
        build(folder, **settings)
    return str(caught.value)


def test_reads_both_files(folder):
    task = build(
        folder, class_names=("a", "b", "c", "d"), validation_fraction=0.3, augmentation=Augmentation(crop=1)
    )
    assert task.name == "npz"
    assert task.classes == ("a", "b", "c", "d")
    assert task.input_shape == (1, 9, 8)
    assert [len(part.y) for part in (task.train, task.validation, task.test)] == [28, 12, 8]
    assert np.array_equal(task.test.x[:, 0], X[:8])
    assert task.augmentation.crop == 1


def test_an_absolute_path_needs_no_folder(folder):
    task = build(Path("elsewhere"), train=folder / "train.npz", test=folder / "test.npz")
    assert task.fingerprint == build(folder).fingerprint


def test_missing_files_are_both_named(tmp_path):
    assert refusal(tmp_path) == (
        "npz: 2 problems\n"
        f"  train: {tmp_path}/train.npz: there is no such file\n"
        f"  test: {tmp_path}/test.npz: there is no such file"
    )


def test_missing_keys_say_what_is_there(folder):
    np.savez(folder / "test.npz", images=X, labels=Y)
    assert refusal(folder) == f"npz: test: {folder}/test.npz: has no x and no y; it holds images, labels"
    np.savez(folder / "test.npz", x=X)
    assert refusal(folder) == f"npz: test: {folder}/test.npz: has no y; it holds x"


@pytest.mark.parametrize("content", [b"", b"x,y\n1,2\n", b"\x80\x04]\x94."])
def test_a_file_of_something_else(content, folder):
    (folder / "train.npz").write_bytes(content)
    assert refusal(folder) == (
        f"npz: train: {folder}/train.npz: is no .npz file\n  try: numpy.savez(PATH, x=x, y=y) writes one"
    )


def test_an_npy_is_no_npz(folder):
    with (folder / "train.npz").open("wb") as file:
        np.save(file, X)
    assert "is no .npz file" in refusal(folder)


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_pickled_objects_are_refused_and_do_not_run(folder):
    np.savez(folder / "train.npz", x=np.array([Malice(folder / "ran")], dtype=object), y=Y)
    assert refusal(folder) == (
        f"npz: train: {folder}/train.npz: holds pickled Python objects, which could run code: refused"
    )
    assert not (folder / "ran").exists()


def test_a_truncated_file(folder):
    content = (folder / "train.npz").read_bytes()
    (folder / "train.npz").write_bytes(content[: len(content) // 2])
    assert "is no .npz file" in refusal(folder)


def test_a_damaged_file(folder):
    content = bytearray((folder / "train.npz").read_bytes())
    content[1000:1100] = bytes(100)
    (folder / "train.npz").write_bytes(content)
    assert refusal(folder) == f"npz: train: {folder}/train.npz: cannot be read: Bad CRC-32 for file 'x.npy'"


def test_a_folder(folder):
    (folder / "data").mkdir()
    assert refusal(folder, train="data").startswith(f"npz: train: {folder}/data: cannot be read: ")


def test_what_is_wrong_with_the_arrays_names_the_files(folder):
    assert refusal(folder, layout="NHWC") == (
        "npz: 2 problems\n"
        "  train: x has shape (40, 9, 8); layout NHWC has 4 axes\n"
        "  test: x has shape (8, 9, 8); layout NHWC has 4 axes\n"
        f"  try: train is {folder}/train.npz, test is {folder}/test.npz"
    )
