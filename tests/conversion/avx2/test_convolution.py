"""Convolutions of codes, against loops over every window in whole numbers."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.conversion.avx2 import convolution
from edgekd.conversion.avx2.convolution import convolve, filters_can_saturate

Array = npt.NDArray[Any]


Case = tuple[Array, Array, int, Array, dict[str, Any]]
"""Pictures, filters, the pictures' zero point, the filters', and the attributes of a Conv."""


def by_definition(
    x: Array, w: Array, zero: int, w_zeros: Array, attributes: dict[str, Any]
) -> tuple[Array, int]:
    """Sums (N, *out, O) and saturated pairs of pictures (N, *S, C), with explicit pads."""
    axes, groups = w.ndim - 2, attributes["group"]
    strides, dilations, pads = attributes["strides"], attributes["dilations"], attributes["pads"]
    sizes = [x.shape[1 + axis] + pads[axis] + pads[axes + axis] for axis in range(axes)]
    extents = [(w.shape[2 + axis] - 1) * dilations[axis] + 1 for axis in range(axes)]
    out = [(sizes[axis] - extents[axis]) // strides[axis] + 1 for axis in range(axes)]
    sums, saturated = np.zeros((len(x), *out, len(w)), np.int64), 0
    is_depthwise = w.shape[1] == 1 and len(w) == groups
    for place in itertools.product(range(len(x)), *map(range, out), range(len(w))):
        picture, *at, channel = place
        group = channel // (len(w) // groups)
        codes, weights = [], []
        for position in itertools.product(*map(range, w.shape[2:])):
            where = [at[a] * strides[a] + position[a] * dilations[a] - pads[a] for a in range(axes)]
            inside = all(0 <= where[a] < x.shape[1 + a] for a in range(axes))
            for c in range(w.shape[1]):
                code = x[(picture, *where, group * w.shape[1] + c)] if inside else zero
                codes.append(int(code))
                weights.append(int(w[(channel, c, *position)]))
        products = [code * weight for code, weight in zip(codes, weights, strict=True)]
        pairs = [sum(products[k : k + 2]) for k in range(0, len(products), 2)]
        clipped = pairs if is_depthwise else [max(-32768, min(32767, pair)) for pair in pairs]
        saturated += sum(one != other for one, other in zip(pairs, clipped, strict=True))
        w_zero = int(w_zeros[channel])
        lost = sum(pairs) - sum(clipped)
        exact = sum((code - zero) * (weight - w_zero) for code, weight in zip(codes, weights, strict=True))
        sums[place] = exact - lost
    return sums, saturated


@st.composite
def convolutions(draw: st.DrawFn) -> Case:
    axes, groups = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    few = st.lists(st.integers(1, 2), min_size=axes, max_size=axes)
    kernel = draw(st.lists(st.integers(1, 3), min_size=axes, max_size=axes))
    attributes = {
        "group": groups,
        "strides": draw(few),
        "dilations": draw(few),
        "pads": draw(st.lists(st.integers(0, 2), min_size=2 * axes, max_size=2 * axes)),
    }
    size = draw(st.lists(st.integers(5, 6), min_size=axes, max_size=axes))
    inputs, outputs = groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 2))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    # Large codes and weights, so that pairs of them do saturate.
    x = random.choice([0, 100, 200, 255], (2, *size, inputs)).astype(np.uint8)
    w = random.choice([-128, -90, 20, 127], (outputs, inputs // groups, *kernel)).astype(np.int8)
    w_zeros = random.integers(-3, 4, outputs) * draw(st.integers(0, 1))
    return x, w, draw(st.integers(0, 255)), w_zeros.astype(np.int8), attributes


@settings(deadline=None, max_examples=40)
@given(convolutions())
def test_convolutions_by_the_definition(case: Case) -> None:
    x, w, zero, w_zeros, attributes = case
    sums, saturated = by_definition(*case)
    found = convolve(x, w, zero, w_zeros, attributes, saturate=True)
    np.testing.assert_array_equal(found.sums, sums)
    assert found.saturated == saturated
    assert found.saturated == 0 or filters_can_saturate(w, attributes["group"])


def picture(*shape: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)


def filters(*shape: int) -> Array:
    return np.random.default_rng(1).integers(-128, 128, shape).astype(np.int8)


ZEROS = np.zeros(1, np.int8)


@pytest.mark.parametrize(
    ("mode", "pads"), [(b"VALID", [0, 0, 0, 0]), (b"SAME_UPPER", [0, 1, 1, 2]), (b"SAME_LOWER", [1, 2, 0, 1])]
)
def test_automatic_borders(mode: bytes, pads: list[int]) -> None:
    """ONNX: the larger half of an odd border comes after (UPPER) or before (LOWER) the picture."""
    x, w = picture(1, 6, 7, 2), filters(3, 2, 2, 4)
    found = convolve(x, w, 9, ZEROS, {"auto_pad": mode}, saturate=True)
    expected = convolve(x, w, 9, ZEROS, {"pads": pads}, saturate=True)
    np.testing.assert_array_equal(found.sums, expected.sums)


def test_automatic_borders_with_strides() -> None:
    x, w = picture(1, 7, 2), filters(3, 2, 4)
    found = convolve(x, w, 9, ZEROS, {"auto_pad": b"SAME_UPPER", "strides": [3]}, saturate=True)
    expected = convolve(x, w, 9, ZEROS, {"pads": [1, 2], "strides": [3]}, saturate=True)
    assert found.sums.shape == (1, 3, 3)
    np.testing.assert_array_equal(found.sums, expected.sums)


def test_pictures_may_be_convolved_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = picture(5, 6, 6, 4), filters(4, 2, 3, 3)
    whole = convolve(x, w, 128, ZEROS, {"group": 2}, saturate=True)
    monkeypatch.setattr(convolution, "_CHUNK", 2 * 16 * 36)
    parts = convolve(x, w, 128, ZEROS, {"group": 2}, saturate=True)
    np.testing.assert_array_equal(parts.sums, whole.sums)
    assert (parts.pairs, parts.saturated) == (whole.pairs, whole.saturated)
    assert whole.saturated > 0


def test_a_depthwise_convolution_is_exact() -> None:
    x, w = np.full((1, 4, 4, 3), 255, np.uint8), np.full((3, 1, 3, 3), 127, np.int8)
    found = convolve(x, w, 0, ZEROS, {"group": 3}, saturate=True)
    assert found.saturated == 0
    assert set(found.sums.flat) == {9 * 255 * 127}
    assert not filters_can_saturate(w, 3)
    assert filters_can_saturate(w, 1)  # the same filters over one channel are no depthwise convolution
    assert filters_can_saturate(np.full((6, 1, 3, 3), 127, np.int8), 3)  # two filters for each channel
