"""In words: how a constant differs from the reference's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from edgekd.conversion.divergence.constants import DECODED, Coding, ConstantPair
from edgekd.conversion.divergence.weights import how_it_differs, is_trained_on, is_unrelated

RANDOM = np.random.default_rng(0)
W = RANDOM.normal(size=(6, 6, 3, 3)).astype(np.float32)
INT8 = Coding(127, per_channel=True, largest_scale=0.02)


def pair(
    candidate: np.ndarray, reference: np.ndarray = W, role: str = "weight", **more: object
) -> ConstantPair:
    given = {"axis": 0 if role == "weight" else None, "coding": INT8 if role == "weight" else None, **more}
    return ConstantPair(
        (("a", 1), ("a", 1)), role, candidate, reference, **given, stored_shape=candidate.shape, turned=False
    )


def rounded(weight: np.ndarray, steps: int = 127) -> np.ndarray:
    """Each output channel on the grid of its largest magnitude."""
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / steps
    return np.rint(weight / scale) * scale


def channels(*factors: float) -> np.ndarray:
    return W * np.array(factors, np.float32).reshape(-1, 1, 1, 1)


def shifted() -> np.ndarray:
    return W + 0.2


ORDER = [1, 2, 3, 4, 5, 0]
WAYS: dict[str, tuple[Callable[[], np.ndarray], str]] = {
    "all": (lambda: 4 * W, "its weights are 4 times the reference's"),
    "one": (lambda: channels(1, 1, 4, 1, 1, 1), "the weights of channel 2 are 4 times the reference's"),
    "two": (
        lambda: channels(1, 3, 1, 1, 3, 1),
        "the weights of channels 1 and 4 are 3 times the reference's",
    ),
    "two factors": (
        lambda: channels(1, 3, 1, 1, 0.5, 1),
        "the weights of channels 1 and 4 are 3 and 0.5 times the reference's",
    ),
    "many": (
        lambda: channels(2, 3, 2, 3, 2, 1),
        "the weights of 5 of its 6 channels have other factors than the reference's",
    ),
    "each": (
        lambda: channels(0.5, 1.5, 2, 0.7, 0.8, 3),
        "its weights have another factor in each channel, 0.5 to 3: batch norm was not folded into them, or ",
    ),
    "outputs": (lambda: W[ORDER], "its output channels are in another order than the reference's"),
    "inputs": (lambda: W[:, ORDER], "its input channels are in another order than the reference's"),
    "transposed": (
        lambda: W.swapaxes(0, 1),
        "its weight is transposed: input and output channels have changed places",
    ),
    "kernel": (
        lambda: W.swapaxes(2, 3),
        "its kernel is transposed: height and width have changed places",
    ),
    "turned": (lambda: W[..., ::-1, ::-1], "its kernel is turned around"),
    "shifted": (shifted, "a constant is added to its weights, up to 0.2: look at their zero point"),
    "others": (
        lambda: RANDOM.normal(size=W.shape).astype(np.float32),
        "its weights are others than the reference's (cosine ",
    ),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_weight_that_is_another(way: str) -> None:
    change, text = WAYS[way]
    found = pair(rounded(change()))
    assert found.differs
    assert how_it_differs(found).startswith(text)


@pytest.mark.parametrize("way", ["all", "one", "each", "outputs", "inputs", "transposed", "turned", "others"])
def test_four_bits_hide_little(way: str) -> None:
    assert pair(rounded(WAYS[way][0](), 7), coding=Coding(7, per_channel=True, largest_scale=0.5)).differs


@pytest.mark.parametrize("steps", [127, 63, 7])
@pytest.mark.parametrize("per_channel", [True, False])
def test_rounding_is_no_difference(steps: int, per_channel: bool) -> None:
    weight = (
        rounded(W, steps) if per_channel else np.rint(W / np.abs(W).max() * steps) * np.abs(W).max() / steps
    )
    found = pair(weight, coding=Coding(steps, per_channel=per_channel, largest_scale=0.5))
    assert not found.differs
    np.testing.assert_allclose(found.rounded_reference(), weight, atol=1e-6)


def test_what_rounding_should_cost_by_its_formula() -> None:
    found = pair(rounded(W))
    expected = (np.abs(W).max(axis=(1, 2, 3)) / 127) ** 2 / 12
    np.testing.assert_allclose(found.expected(), expected, rtol=1e-6)
    error = ((rounded(W) - W) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(found.excess(), error / expected, rtol=1e-3)


def test_a_bias_that_is_lost_is_told_from_one_that_rounds_to_nothing() -> None:
    bias = np.array([0.1, -0.3], np.float32)
    lost = pair(0 * bias, bias, "bias")
    assert lost.differs
    assert how_it_differs(lost) == "its bias is lost: all zero, the reference's up to 0.3"
    coarse = Coding(2**31 - 1, per_channel=True, largest_scale=0.7)
    assert not pair(0 * bias, bias, "bias", coding=coarse).differs
    other = pair(bias[::-1], bias, "bias")
    assert how_it_differs(other) == "its bias differs from the reference's by up to 0.4"


def test_the_factors_of_a_normalization() -> None:
    found = pair(np.array([1.0, 2.1]), np.array([1.0, 2.0]), "constant")
    assert found.differs
    assert how_it_differs(found) == "its constants differ from the reference's by up to 0.1"
    assert not pair(np.array([1.0, 2.0004]), np.array([1.0, 2.0]), "constant").differs


def test_floats_that_were_rounded_are_no_difference_but_others_are() -> None:
    assert not pair(rounded(W), coding=None).differs
    assert pair(rounded(W, 30), coding=None).differs


def test_weights_that_something_else_decodes_are_not_judged() -> None:
    assert not pair(rounded(W, 3), coding=DECODED).differs


def test_other_shapes_cannot_be_compared() -> None:
    assert not pair(W[:3]).differs


def test_more_training_is_told_from_another_network() -> None:
    trained = pair(rounded(W + 0.5 * RANDOM.normal(size=W.shape).astype(np.float32)))
    assert trained.differs
    assert is_trained_on(trained)
    assert not is_unrelated(trained)
    strange = pair(rounded(RANDOM.normal(size=W.shape)))
    assert not is_trained_on(strange)
    assert is_unrelated(strange)
    scaled = pair(4 * W)
    assert not is_trained_on(scaled)
    assert not is_unrelated(scaled)


def test_a_constant_in_the_layout_of_the_candidate() -> None:
    filled = ConstantPair((("a", 1), ("b", 1)), "weight", W, W, 0, INT8, (8, 6, 3, 3), False)
    stored = filled.as_stored(W)
    assert stored.shape == (8, 6, 3, 3)
    assert np.array_equal(stored[:6], W)
    assert not stored[6:].any()
    matrix = W[:4, :, 0, 0]
    turned = ConstantPair((("a", 1), ("b", 1)), "weight", matrix, matrix, 0, INT8, (6, 4), True)
    assert np.array_equal(turned.as_stored(matrix), matrix.T)
