"""Calibration examples of the user's own: taken, told apart, and refused where they cannot be right."""

import shutil

import numpy as np
import pytest

from edgekd.documents.recipe import DigitsTask
from edgekd.errors import DataError
from edgekd.pipeline.compress import compress, first_missing
from edgekd.pipeline.run_folder import read_run
from edgekd.tasks.task import build_task
from tests.tiny import RECIPE, Listener

pytestmark = pytest.mark.xdist_group("whole run")


@pytest.fixture
def recipe(tmp_path):
    """A recipe that calibrates on a file with these examples."""

    def write(x):
        np.savez(tmp_path / "own.npz", x=x)
        path = tmp_path / "own.toml"
        path.write_text(
            RECIPE.replace("calibrators", 'calibration_file = "own.npz"\ncalibrators').replace(
                'arms = ["qad"]', 'arms = ["ptq"]'
            )
        )
        return path

    return write


@pytest.fixture(scope="module")
def digits():
    return build_task(DigitsTask(validation_fraction=0.1), base_dir=None, seed=0).train.x


def test_scales_are_set_on_the_file(recipe, digits, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    few = recipe(digits[:40])
    compress(few, copy, Listener(), until="quantize")
    stage = read_run(copy)[1]["ptq-max"]
    assert stage.file.ingredients["examples"] == 40
    assert first_missing(few, copy, Listener(), until="quantize") is None
    recipe(digits[40:80])
    assert first_missing(few, copy, Listener(), until="quantize") == "ptq-max"
    compress(few, copy, Listener(), until="quantize")
    assert read_run(copy)[1]["ptq-max"].json("scales.json") != stage.json("scales.json")


def refused(recipe, x, tmp_path):
    path = recipe(x)
    with pytest.raises(DataError) as caught:
        compress(path, tmp_path / "out", Listener())
    assert not (tmp_path / "out").exists()
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_examples_that_never_vary_are_refused(recipe, digits, tmp_path):
    assert refused(recipe, np.repeat(digits[:1], 32, axis=0), tmp_path) == (
        "own.npz: all 32 examples are the same one\n  try: give examples as different as those that will come"
    )


def test_examples_of_another_shape_are_refused(recipe, digits, tmp_path):
    assert refused(recipe, digits[:, :, :4], tmp_path) == (
        "own.npz: an example has shape (1, 4, 8); the network takes (1, 8, 8)"
    )


def test_examples_of_another_type_are_refused(recipe, digits, tmp_path):
    assert refused(recipe, digits.astype(np.float32) / 255, tmp_path) == (
        "own.npz: calibration examples are float32; those of training are uint8\n"
        "  try: give them in the units of the training file: edgekd normalizes them itself"
    )


def test_examples_of_another_range_are_refused(recipe, digits, tmp_path):
    found = refused(recipe, digits // 16 + 200, tmp_path)
    assert found.startswith("own.npz: the ")
    assert found.endswith("try: normalize them as the training examples were")


def test_a_missing_file_is_named(recipe, digits, tmp_path):
    path = recipe(digits)
    (tmp_path / "own.npz").unlink()
    with pytest.raises(DataError, match=r"own\.npz"):
        compress(path, tmp_path / "out", Listener())


def test_where_the_file_lies_changes_nothing(recipe, digits, run, tmp_path):
    copy = shutil.copytree(run, tmp_path / "copy")
    path = recipe(digits[:40])
    compress(path, copy, Listener(), until="quantize")
    (tmp_path / "elsewhere").mkdir()
    shutil.copy(tmp_path / "own.npz", tmp_path / "elsewhere" / "own.npz")
    shutil.copy(path, tmp_path / "elsewhere" / "own.toml")
    moved = tmp_path / "elsewhere" / "own.toml"
    assert first_missing(moved, copy, Listener(), until="quantize") is None
