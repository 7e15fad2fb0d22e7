"""Tasks from arrays: what comes out, and what every kind of unusable data gets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from edgekd.documents.recipe import Augmentation
from edgekd.errors import DataError
from edgekd.tasks.make import make_task


def images(examples, seed=0, shape=(6, 5, 3)):
    return np.random.default_rng(seed).integers(0, 256, (examples, *shape)).astype(np.uint8)


def labels(examples, classes=3):
    return np.arange(examples) % classes


def make(train=None, test=None, **settings):
    train = (images(60), labels(60)) if train is None else train
    test = (images(9, 1), labels(9)) if test is None else test
    defaults = {"layout": "NHWC", "validation_fraction": 0.2, "seed": 0}
    return make_task("own", train=train, test=test, **defaults | settings)


def test_channels_come_first_and_the_validation_part_is_split_off():
    x, y = images(60), labels(60)
    task = make((x, y))
    assert task.input_shape == task.input.shape == (3, 6, 5)
    assert (task.in_channels, task.num_classes, task.classes) == (3, 3, ("0", "1", "2"))
    assert task.input.layout == "NCHW"
    assert [len(part.y) for part in (task.train, task.validation, task.test)] == [48, 12, 9]
    for part in (task.train, task.validation, task.test):
        assert part.x.dtype == np.uint8
        assert part.x.flags.c_contiguous
        assert part.y.dtype == np.int64
    together = np.concatenate([task.train.x, task.validation.x])
    assert sorted(map(bytes, together)) == sorted(map(bytes, x.transpose(0, 3, 1, 2).copy()))


def test_the_normalization_is_that_of_the_training_part_alone():
    x = images(60).astype(np.float32)
    task = make((x, labels(60)), (images(9, 1).astype(np.float32) * 100, labels(9)))
    raw = task.train.x.astype(np.float64)
    assert task.input.mean == pytest.approx(raw.mean(axis=(0, 2, 3)), rel=1e-9)
    assert task.input.std == pytest.approx(raw.std(axis=(0, 2, 3)), rel=1e-9)


def test_normalize_is_the_formula():
    task = make()
    normalized = task.normalize(task.test.x)
    mean, std = (np.array(value).reshape(1, 3, 1, 1) for value in (task.input.mean, task.input.std))
    assert normalized.dtype == np.float32
    assert normalized == pytest.approx((task.test.x - mean) / std, abs=1e-5)
    trained = task.normalize(task.train.x)
    assert trained.mean(axis=(0, 2, 3)) == pytest.approx(0, abs=1e-5)
    assert trained.std(axis=(0, 2, 3)) == pytest.approx(1, abs=1e-5)


def test_the_background_is_black_for_images_and_the_mean_for_other_data():
    task = make()
    black = task.normalize(np.zeros((1, 3, 1, 1), dtype=np.uint8))
    assert task.background == pytest.approx(black.ravel())
    floats = make((images(60) / 255, labels(60)), (images(9) / 255, labels(9)))
    assert floats.background.tolist() == [0, 0, 0]


@pytest.mark.parametrize("dtype", [np.int16, np.float16, np.float32, np.float64, ">f4"])
def test_other_numbers_become_float32(dtype):
    x = images(60).astype(dtype)
    task = make((x, labels(60)), (x[:9], labels(9)))
    assert task.input.raw_dtype == task.train.x.dtype == "float32"
    assert task.test.x == pytest.approx(x[:9].transpose(0, 3, 1, 2).astype(np.float64), rel=1e-3)


def test_table_rows_and_waveforms():
    table = make((images(60, shape=(4,)), labels(60)), (images(9, shape=(4,)), labels(9)), layout="NC")
    assert (table.input.layout, table.input_shape) == ("NC", (4,))
    wave = make((images(60, shape=(50,)), labels(60)), (images(9, shape=(50,)), labels(9)), layout="NL")
    assert (wave.input.layout, wave.input_shape) == ("NCL", (1, 50))
    assert wave.normalize(wave.test.x).shape == (9, 1, 50)


def test_the_fingerprint_changes_with_whatever_a_result_depends_on():
    x, y = images(60), labels(60)
    other_x, other_y = x.copy(), y.copy()
    other_x[5, 0, 0, 0] ^= 1
    other_y[[5, 6]] = other_y[[6, 5]]
    tasks = [
        make((x, y)),
        make((other_x, y)),
        make((x, other_y)),
        make((x, y), (images(9, 2), labels(9))),
        make((x, y), seed=1),
        make((x, y), validation_fraction=0.3),
        make((x, y), classes=("a", "b", "c")),
        make((x.astype(np.float32), y), (images(9, 1).astype(np.float32), labels(9))),
    ]
    assert len({task.fingerprint for task in tasks}) == len(tasks)
    assert make((x, y)).fingerprint == tasks[0].fingerprint
    assert make((x, y), augmentation=Augmentation(crop=1)).fingerprint == tasks[0].fingerprint


def test_a_task_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        make().name = "other"


def nan_images():
    x = images(60).astype(np.float32)
    x[7, 0, 0, 0], x[9, 1, 1] = np.nan, np.inf
    return x


X, Y = images(60), labels(60)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"train": ([[1.0]], Y)}, "train: x is a list; a NumPy array is wanted"),
        ({"train": (X, [0, 1])}, "train: y is a list; a NumPy array is wanted"),
        ({"train": (X[..., 0], Y)}, "train: x has shape (60, 6, 5); layout NHWC has 4 axes"),
        ({"test": (X[:9, :5], Y[:9])}, "an example has shape (6, 5, 3) in train and (5, 5, 3) in test"),
        ({"test": (X[:9].astype(np.float32), Y[:9])}, "x is uint8 in train and float32 in test"),
        ({"train": (X, Y[:50])}, "train: x has 60 examples, y has 50 labels"),
        (
            {"train": (X.astype(np.int64), Y), "test": (X[:9], Y[:9])},
            "train: x is int64; uint8, int16, float16, float32, float64 are known",
        ),
        ({"train": (X, Y.astype(np.float32))}, "train: y is float32; integer labels are wanted"),
        ({"train": (X, Y == 1)}, "train: y is bool; integer labels are wanted"),
        (
            {"train": (X, Y[:, None])},
            "train: y has shape (60, 1); one label for each example is wanted, (N,)",
        ),
        ({"train": (X, Y - 1)}, "train: label -1 of example 0 is negative; labels count from 0"),
        (
            {"train": (nan_images(), Y), "test": (X[:9].astype(np.float32), Y[:9])},
            "train: x has 4 values that are NaN, infinite or beyond float32, the first in example 7",
        ),
        (
            {"train": (X * 1e300, Y), "test": (X[:9] * 1.0, Y[:9])},
            f"train: x has {np.count_nonzero(X)} values that are NaN, infinite or beyond float32, "
            "the first in example 0",
        ),
        ({"test": (X[:9], Y[:9] + 1)}, "test: label 3 never occurs in train"),
        (
            {"test": (X[:9], Y[:9] + 1), "classes": ("a", "b", "c")},
            "test: label 3 of example 2 is out of range; there are 3 class names",
        ),
        (
            {"train": (X, Y * 10**12)},
            "train: no example has label 1 (and 1999999999997 more); labels count from 0, without gaps",
        ),
        (
            {"train": (X, Y + 1), "test": (X[:9], Y[:9] + 1)},
            "train: no example has label 0; labels count from 0, without gaps",
        ),
        (
            {"classes": ("a", "b", "c", "d")},
            "train: no example has label 3; labels count from 0, without gaps",
        ),
        ({"classes": ("a", "b", "b")}, "class name 'b' is given twice"),
        (
            {"train": (X, np.r_[3, 4, Y[2:]])},
            "train: class 3 has 1 example (and 1 more); a stratified split needs 2",
        ),
        ({"train": (X, Y * 0), "test": (X[:9], Y[:9] * 0)}, "train: only one class occurs; two are needed"),
        ({"train": (X[:0], Y[:0])}, "train: x has shape (0, 6, 5, 3), which is empty"),
        ({"test": (X[:0], Y[:0])}, "test: x has shape (0, 6, 5, 3), which is empty"),
        (
            {"layout": "NXYC"},
            "layout 'NXYC': N comes first, then C or not, and nothing else, L, HW or DHW in any order",
        ),
        ({"validation_fraction": 1.0}, "validation_fraction is 1.0; it lies between 0 and 1"),
        (
            {"augmentation": Augmentation(crop=5)},
            "augmentation.crop = 5 can push an example of (3, 6, 5) out of sight",
        ),
    ],
)
def test_one_problem_is_one_line(settings, problem):
    with pytest.raises(DataError) as caught:
        make(**settings)
    if "1999999999997" in problem:  # the test part then has labels that training never saw
        assert problem in caught.value.message
    else:
        assert str(caught.value) == f"own: {problem}"


@pytest.mark.parametrize(
    ("layout", "shape", "problems"),
    [
        (
            "NL",
            (50,),
            [
                "augmentation.flip is for images; the input's layout is NCL",
                "augmentation.rotate_degrees is for images; the input's layout is NCL",
            ],
        ),
        (
            "NC",
            (4,),
            [
                "augmentation.flip is for images; the input's layout is NC",
                "augmentation.rotate_degrees is for images; the input's layout is NC",
                "augmentation.crop moves along an axis; the input's layout, NC, has none besides C",
            ],
        ),
    ],
)
def test_augmentation_that_the_input_cannot_take(layout, shape, problems):
    train, test = (images(60, shape=shape), labels(60)), (images(9, shape=shape), labels(9))
    augmentation = Augmentation(crop=1, flip=True, rotate_degrees=5, noise=0.1)
    with pytest.raises(DataError) as caught:
        make(train, test, layout=layout, augmentation=augmentation)
    assert caught.value.message == "\n  ".join([f"{len(problems)} problems", *problems])
    assert make(train, test, layout=layout, augmentation=Augmentation(noise=0.1)).augmentation.noise == 0.1


def test_every_problem_is_told_at_once():
    with pytest.raises(DataError) as caught:
        make((nan_images(), Y - 1), (X[:9, :, :, 0], Y[:8]))
    assert str(caught.value) == (
        "own: 4 problems\n"
        "  train: x has 4 values that are NaN, infinite or beyond float32, the first in example 7\n"
        "  test: x has shape (9, 6, 5); layout NHWC has 4 axes\n"
        "  train: label -1 of example 0 is negative; labels count from 0\n"
        "  test: x has 9 examples, y has 8 labels"
    )


def test_an_example_in_both_parts_is_no_error():
    assert len(make((X, Y), (X[:9], Y[:9])).test.y) == 9
