"""Views: each transformation against NumPy, what the views of an example share, and what holds for all."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from edgekd.documents.recipe import Augmentation
from edgekd.documents.views import PRETEXT, STRONG, WEAK
from edgekd.tasks.views import has_fixed_views, make_views, offered_views

ALL = (WEAK, STRONG, *PRETEXT)
TURNS = (WEAK, *PRETEXT)
SHAPES = ((3, 8, 8), (1, 5, 9), (2, 12))


def batch(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def show(x, views, seed=0, background_C=None, **settings):
    """The views, (V, B, C, ...)."""
    generator = torch.Generator().manual_seed(seed)
    rows = make_views(x, views, Augmentation(**settings), generator, background_C=background_C)
    return rows.unflatten(0, (len(views), len(x)))


def test_square_images_are_turned_by_quarters():
    x = batch(4, 3, 6, 6)
    shown = show(x, TURNS)
    for quarters, view in enumerate(shown):
        assert np.array_equal(view.numpy(), np.rot90(x.numpy(), quarters, axes=(2, 3)))


def test_other_images_are_mirrored():
    x = batch(4, 3, 5, 7)
    plain = x.numpy()
    expected = (plain, plain[:, :, ::-1], plain[:, :, :, ::-1], plain[:, :, ::-1, ::-1])
    for view, wanted in zip(show(x, TURNS), expected, strict=True):
        assert np.array_equal(view.numpy(), wanted)


def test_series_are_negated_and_reversed():
    x = batch(4, 3, 11)
    plain = x.numpy()
    expected = (plain, -plain, plain[:, :, ::-1], -plain[:, :, ::-1])
    for view, wanted in zip(show(x, TURNS), expected, strict=True):
        assert np.array_equal(view.numpy(), wanted)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_four_transformations_of_an_example_differ(shape):
    for view, other in itertools.combinations(show(batch(4, *shape), TURNS), 2):
        assert ((view - other).flatten(1).abs().amax(1) > 0).all()


@given(
    st.sampled_from(SHAPES),
    st.lists(st.sampled_from(ALL), min_size=1, max_size=5, unique=True),
    st.integers(1, 4),
    st.integers(0, 1000),
    st.integers(0, 3),
    st.booleans(),
)
def test_shape_type_input_and_generator(shape, views, examples, seed, crop, flip):
    x = batch(examples, *shape)
    before = x.clone()
    settings = {"crop": crop, "noise": 0.1, "flip": flip and len(shape) == 3}
    out = show(x, views, seed, **settings)
    assert out.shape == (len(views), examples, *shape)
    assert out.dtype == x.dtype
    assert out.isfinite().all()
    assert torch.equal(x, before)
    assert torch.equal(out, show(x, views, seed, **settings))


@given(st.sampled_from(SHAPES), st.permutations(TURNS))
def test_the_order_of_the_views_is_that_of_the_rows(shape, views):
    x = batch(3, *shape)
    in_order = dict(zip(TURNS, show(x, TURNS), strict=True))
    for name, view in zip(views, show(x, views), strict=True):
        assert torch.equal(view, in_order[name])


def test_the_views_of_an_example_share_its_mirroring():
    x = batch(400, 1, 5, 5)
    weak, *turned = show(x, TURNS, flip=True)
    mirrored = (weak == x.flip(-1)).flatten(1).all(1)
    assert torch.equal(weak[~mirrored], x[~mirrored])
    assert abs(int(mirrored.sum()) - 200) < 50  # five standard deviations
    for quarters, view in enumerate(turned, start=1):
        assert np.array_equal(view.numpy(), np.rot90(weak.numpy(), quarters, axes=(2, 3)))


def test_each_view_is_cropped_on_its_own_after_the_turn():
    x = 1 + torch.arange(49.0).view(1, 1, 7, 7).expand(500, 1, 7, 7)
    shown = show(x, TURNS, crop=2).numpy()
    turned = [np.rot90(x[0, 0].numpy(), quarters) for quarters in range(4)]
    # (V, B, 2): which pixel of the turned image came to the center
    centers = np.array(
        [
            [np.argwhere(image == value)[0] for value in view[:, 0, 3, 3]]
            for image, view in zip(turned, shown, strict=True)
        ]
    )
    assert centers.min() == 1
    assert centers.max() == 5
    for first, second in itertools.combinations(centers.reshape(4, -1), 2):
        assert abs(np.corrcoef(first, second)[0, 1]) < 0.16  # five standard deviations of 1000 pairs


def test_what_a_crop_uncovers_is_the_background():
    background = torch.tensor([2.0, -3.0])
    x = background.view(1, 2, 1, 1).expand(5, 2, 8, 8)
    for view in show(x, TURNS, background_C=background, crop=3):
        assert view == pytest.approx(x, abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_strong_view_changes_only_its_own_rows(shape):
    x = batch(6, *shape)
    weak, strong, *turned = show(x, ALL)
    for view, wanted in zip((weak, *turned), show(x, TURNS), strict=True):
        assert torch.equal(view, wanted)
    assert ((strong - weak).flatten(1).abs().amax(1) > 0).all()
    assert not torch.equal(strong, show(x, ALL, seed=1)[1])


@pytest.mark.parametrize("background_C", [None, torch.tensor([7.0, -9.0])], ids=["zeros", "given"])
def test_a_strong_image_is_a_line_through_the_weak_one_with_a_box_of_background(background_C):
    x = batch(200, 2, 12, 16)
    strong = show(x, (STRONG,), background_C=background_C)[0].numpy()
    nothing = np.zeros(2) if background_C is None else background_C.numpy()
    sizes = []
    for plain, image in zip(x.numpy(), strong, strict=True):
        inside = (image == nothing[:, None, None]).all(0)
        rows, columns = inside.any(1), inside.any(0)
        assert np.array_equal(inside, np.outer(rows, columns))
        for one in (rows, columns):
            assert np.abs(np.diff(one.astype(int))).sum() <= 2  # one stretch
        sizes.append((rows.sum(), columns.sum()))
        slope, offset = np.polyfit(plain[:, ~inside].ravel(), image[:, ~inside].ravel(), 1)
        assert image[:, ~inside] == pytest.approx(slope * plain[:, ~inside] + offset, abs=1e-4)
        assert 0.6 <= slope <= 1.4
        assert -0.4 <= offset <= 0.4
    assert np.max(sizes, axis=0).tolist() == [6, 8]
    assert np.min(sizes) == 0


def test_a_strong_series_is_shifted_by_at_most_a_tenth_and_masked_by_at_most_half():
    x = 1 + torch.arange(40.0).view(1, 1, 40).expand(300, 1, 40)
    background = torch.tensor([-5.0])
    shifts, masked = set(), []
    for series in show(x, (STRONG,), background_C=background)[0][:, 0].numpy():
        seen = np.flatnonzero(series != -5)
        (shift,) = {int(value - 1 - place) for place, value in zip(seen, series[seen], strict=True)}
        shifts.add(shift)
        inner = np.flatnonzero((series == -5)[max(0, -shift) : 40 - max(0, shift)])
        assert len(inner) == 0 or len(inner) == inner[-1] - inner[0] + 1  # one stretch
        masked.append(len(inner))
    assert shifts == set(range(-4, 5))
    assert max(masked) == 20


def test_a_mirrored_image_is_shared_by_the_strong_view_too():
    x = batch(300, 1, 6, 6)
    weak, strong = show(x, (WEAK, STRONG), flip=True)
    kept = strong != 0
    for plain, image, inside in zip(weak, strong, kept, strict=True):
        slope = np.corrcoef(plain[inside].numpy(), image[inside].numpy())[0, 1]
        assert slope == pytest.approx(1, abs=1e-4)


def test_one_view_without_augmentation_is_the_batch():
    for shape in (*SHAPES, (6,), (1, 3, 4, 5)):
        x = batch(4, *shape)
        assert torch.equal(show(x, (WEAK,))[0], x)


def test_low_precision_batches_stay_so():
    assert show(batch(3, 1, 8, 8).bfloat16(), ALL, crop=1, flip=True).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("shape", "settings", "offered"),
    [
        ((3, 8, 8), {}, ALL),
        ((3, 8, 8), {"flip": True}, ALL),
        ((1, 5, 9), {}, ALL),
        ((1, 5, 9), {"flip": True}, (WEAK, STRONG)),
        ((2, 12), {}, ALL),
        ((6,), {}, (WEAK,)),
        ((1, 3, 4, 5), {}, (WEAK,)),
    ],
    ids=str,
)
def test_which_views_an_input_has(shape, settings, offered):
    assert offered_views(shape, Augmentation(**settings)) == offered


def test_mirrored_images_that_are_not_square_could_not_be_told_from_their_second_pretext_view():
    """Why they are not offered: the augmentation gives the same images as the transformation."""
    x = batch(50, 1, 5, 9)
    weak, _, mirrored, _ = show(x, TURNS, flip=True)
    assert torch.equal(mirrored, weak.flip(-1))


def test_views_are_fixed_without_anything_random():
    assert has_fixed_views(Augmentation(), TURNS)
    assert not has_fixed_views(Augmentation(), ALL)
    assert not has_fixed_views(Augmentation(crop=1), (WEAK,))
