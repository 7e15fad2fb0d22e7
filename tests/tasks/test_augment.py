"""Augmentation: each change against a plain statement of it, and what holds for all of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from edgekd.documents.recipe import Augmentation
from edgekd.tasks.augment import augment

SHAPES = ((3, 8, 8), (1, 5, 9), (2, 12), (1, 3, 4, 5), (6,))


def batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def apply(x, seed=0, background_C=None, **settings):
    generator = torch.Generator().manual_seed(seed)
    return augment(x, Augmentation(**settings), generator, background_C=background_C)


settings_for_images = st.fixed_dictionaries(
    {
        "crop": st.integers(0, 4),
        "flip": st.booleans(),
        "rotate_degrees": st.floats(0, 180),
        "noise": st.floats(0, 2),
    }
)


@given(settings_for_images, st.integers(0, 1000), st.integers(1, 5))
def test_keeps_shape_and_type_and_input_and_depends_on_the_generator_alone(settings, seed, examples):
    x = batch(examples, 2, 6, 7)
    before = x.clone()
    out = apply(x, seed, **settings)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert out.isfinite().all()
    assert torch.equal(x, before)
    assert torch.equal(out, apply(x, seed, **settings))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_defaults_change_nothing(shape):
    x = batch(4, *shape)
    assert torch.equal(apply(x), x)
    assert torch.equal(apply(x, background_C=torch.ones(shape[0])), x)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if len(shape) > 1])
def test_a_crop_is_a_window_of_the_padded_example(shape):
    crop = 2
    x = batch(50, *shape)
    out = apply(x, crop=crop).numpy()
    padded = np.pad(x.numpy(), [(0, 0), (0, 0), *[(crop, crop)] * (len(shape) - 1)])
    offsets = set()
    for index in range(len(x)):
        found = [
            start
            for start in np.ndindex(*[2 * crop + 1] * (len(shape) - 1))
            if np.array_equal(
                padded[index][(..., *(slice(s, s + n) for s, n in zip(start, shape[1:], strict=True)))],
                out[index],
            )
        ]
        assert len(found) == 1
        offsets.add(found[0])
    assert {start[0] for start in offsets} == set(range(2 * crop + 1))


def test_crops_of_both_axes_are_independent():
    x = torch.arange(1.0, 26.0).view(1, 1, 5, 5).expand(2000, 1, 5, 5)
    centers = apply(x, crop=1)[:, 0, 2, 2]
    values, counts = centers.unique(return_counts=True)
    assert values.tolist() == [7, 8, 9, 12, 13, 14, 17, 18, 19]
    # 2000 / 9 = 222; five standard deviations are 70.
    assert (counts - 2000 / 9).abs().max() < 70


def test_half_of_the_images_are_mirrored_and_the_others_stay():
    x = batch(2000, 1, 3, 4)
    out = apply(x, flip=True)
    mirrored = (out == x.flip(-1)).flatten(1).all(1)
    assert ((out == x).flatten(1).all(1) ^ mirrored).all()
    assert abs(int(mirrored.sum()) - 1000) < 112  # five standard deviations


def test_the_same_flips_twice_give_the_images_back():
    x = batch(20, 2, 4, 5)
    once = apply(x, seed=4, flip=True)
    assert not torch.equal(once, x)
    assert torch.equal(apply(once, seed=4, flip=True), x)


@pytest.mark.parametrize("shape", [(9, 9), (8, 8), (7, 13)])
def test_a_rotation_is_that_of_scipy(shape):
    x = batch(6, 1, *shape)
    out = apply(x, seed=2, rotate_degrees=90)
    turn = torch.rand(6, generator=torch.Generator().manual_seed(2))
    for image, rotated, degrees in zip(x[:, 0].numpy(), out[:, 0].numpy(), (2 * turn - 1) * 90, strict=True):
        expected = ndimage.rotate(np.pad(image, 20), degrees.item(), reshape=False, order=1, mode="constant")[
            20:-20, 20:-20
        ]
        assert rotated == pytest.approx(expected, abs=1e-4)


def test_angles_stay_within_the_limit():
    x = torch.zeros(500, 1, 41, 41)
    x[:, :, 20, 30:] = 1
    out = apply(x, rotate_degrees=20)[:, 0].double()
    rows, columns = torch.meshgrid(torch.arange(41) - 20, torch.arange(41) - 20, indexing="ij")
    angles = torch.rad2deg(torch.atan2((out * rows).sum((1, 2)), (out * columns).sum((1, 2))))
    assert angles.abs().max() < 20.5
    assert angles.min() < -18
    assert angles.max() > 18


def test_noise_has_the_given_spread():
    x = torch.zeros(1000, 6)
    out = apply(x, noise=0.5)
    assert out.std().item() == pytest.approx(0.5, rel=0.05)
    assert out.mean().item() == pytest.approx(0, abs=0.03)


def test_what_lies_outside_is_the_background():
    background = torch.tensor([2.0, -3.0])
    x = background.view(1, 2, 1, 1).expand(10, 2, 8, 8)
    out = apply(x, crop=3, rotate_degrees=45, background_C=background)
    assert out == pytest.approx(x, abs=1e-6)
    assert apply(x, crop=3, rotate_degrees=45) != pytest.approx(x, abs=1e-1)


def test_low_precision_batches_stay_so():
    x = batch(3, 1, 8, 8).bfloat16()
    assert apply(x, crop=1, flip=True, rotate_degrees=10, noise=0.1).dtype == torch.bfloat16
