"""Rounding and its gradients, held against the formulas of the papers in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.quantization.grid import at_least, learn_grid, round_to_grid

RANGES = [(-128, 127), (0, 255), (-63, 63), (-7, 7)]
Array = np.ndarray


def lsq(x: Array, scale: Array, low: int, high: int) -> tuple[Array, Array, Array]:
    """Esser et al. 2020, equations 1 to 3: the value, its slope in x, its slope in the scale."""
    v = x / scale
    value = np.rint(np.clip(v, low, high)) * scale
    inside = (v > low) & (v < high)
    slope = np.where(inside, np.rint(v) - v, np.where(v <= low, low, high))
    return value, inside.astype(x.dtype), slope


def values(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32))


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_it_rounds_half_to_even_and_clamps(low: int, high: int) -> None:
    x = torch.arange(-600, 601) * 0.25
    found = round_to_grid(x, torch.tensor(0.5), low, high)
    expected = np.clip(np.rint(x.numpy() / 0.5), low, high) * 0.5
    np.testing.assert_array_equal(found.numpy(), expected)


@given(
    st.integers(0, 1000),
    st.sampled_from(RANGES),
    st.floats(2.0**-20, 2.0**10, width=32),
)
@settings(deadline=None, max_examples=60)
def test_it_is_torchs_own_fake_quantization_bit_for_bit(
    seed: int, limits: tuple[int, int], scale: float
) -> None:
    low, high = limits
    x = values(seed, (3, 4, 5)) * scale * high
    zero = torch.zeros((), dtype=torch.int32)
    expected = torch.fake_quantize_per_tensor_affine(x, torch.tensor(scale), zero, low, high)
    assert torch.equal(round_to_grid(x, torch.tensor(scale), low, high), expected)


def test_scales_of_channels_are_those_of_torchs_fake_quantization() -> None:
    x, scale_O = values(0, (6, 3, 3, 3)), torch.rand(6) * 0.05 + 0.001
    zeros = torch.zeros(6, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(x, scale_O, zeros, 0, -7, 7)
    assert torch.equal(round_to_grid(x, scale_O.view(-1, 1, 1, 1), -7, 7), expected)


@pytest.mark.parametrize(("low", "high"), RANGES)
def test_the_gradient_passes_straight_through_codes_within_the_range(low: int, high: int) -> None:
    x = torch.linspace(-300.3, 300.3, 2001, requires_grad=True)
    gradient = torch.linspace(1, 2, 2001)
    round_to_grid(x, torch.tensor(1.0), low, high).backward(gradient)
    codes = np.rint(x.detach().numpy())
    expected = gradient.numpy() * ((codes >= low) & (codes <= high))
    np.testing.assert_array_equal(x.grad.numpy(), expected)


def test_the_scale_has_no_gradient_there() -> None:
    x, scale = values(0, (5,)).requires_grad_(), torch.tensor(0.1, requires_grad=True)
    round_to_grid(x, scale, -7, 7).sum().backward()
    assert scale.grad is None


@given(st.integers(0, 1000), st.sampled_from(RANGES), st.floats(2.0**-10, 1, width=32), st.floats(0.01, 1))
@settings(deadline=None, max_examples=60)
def test_a_learned_scale_of_a_tensor_has_the_gradient_of_the_paper(
    seed: int, limits: tuple[int, int], scale: float, factor: float
) -> None:
    low, high = limits
    x, gradient = values(seed, (4, 30)), values(seed + 1, (4, 30))
    learned, leaf = torch.tensor(scale, requires_grad=True), x.clone().requires_grad_()
    found = learn_grid(leaf, learned, low, high, factor=factor)
    found.backward(gradient)
    # float32 like the code, or a value on the edge of a step would be on the other side of it
    value, slope_x, slope_scale = lsq(x.numpy() * (1 / np.float32(scale)), np.float32(1), low, high)
    np.testing.assert_allclose(found.detach().numpy(), value * np.float32(scale), rtol=1e-6)
    np.testing.assert_array_equal(leaf.grad.numpy(), gradient.numpy() * slope_x)
    expected = factor * (gradient.numpy().astype(np.float64) * slope_scale).sum()
    largest = factor * np.abs(gradient.numpy() * slope_scale).sum()
    assert learned.grad.item() == pytest.approx(expected, abs=1e-5 * largest + 1e-9)


def test_learned_scales_of_channels_each_have_their_own_gradient() -> None:
    x, gradient = values(0, (3, 2, 2, 2)), values(1, (3, 2, 2, 2))
    scale_O = torch.tensor([0.05, 0.3, 2.0], requires_grad=True)
    learn_grid(x, scale_O.view(-1, 1, 1, 1), -7, 7, factor=0.5).backward(gradient)
    for channel in range(3):
        _, _, slope = lsq(x[channel].numpy(), scale_O[channel].item(), -7, 7)
        expected = 0.5 * (gradient[channel].numpy() * slope).sum()
        assert scale_O.grad[channel].item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("x", [-200.0, 200.0])
def test_beyond_the_range_the_scales_gradient_is_the_true_slope(x: float) -> None:
    """There the value is scale * limit, which needs no estimate: finite differences agree."""

    def value(scale: float) -> torch.Tensor:
        return round_to_grid(torch.tensor([x]), torch.tensor(scale), -128, 127)

    scale = torch.tensor(1.0, requires_grad=True)
    learn_grid(torch.tensor([x]), scale, -128, 127, factor=1.0).sum().backward()
    difference = (value(1.01) - value(0.99)).item() / 0.02
    assert scale.grad.item() == pytest.approx(difference, rel=1e-4)


def test_inside_the_range_the_mean_slope_is_that_of_the_mean_value() -> None:
    """Over many x, rounding errors are even: E[dy/dscale] and the finite difference of E[y] are both near 0,
    where a slope of v or of round(v) would be far from it."""
    x = torch.linspace(0, 100, 200_001)
    scale = torch.tensor(1.0, requires_grad=True)
    learn_grid(x, scale, -128, 127, factor=1 / len(x)).sum().backward()
    means = [float(round_to_grid(x, torch.tensor(s), -128, 127).double().mean()) for s in (0.99, 1.01)]
    assert abs(scale.grad.item()) < 0.01
    assert abs(means[1] - means[0]) / 0.02 < 0.5


def test_bfloat16_comes_and_goes_and_is_rounded_in_float32() -> None:
    x = values(0, (1000,)).bfloat16().requires_grad_()
    scale = torch.tensor(0.01, requires_grad=True)
    found = learn_grid(x, scale, -128, 127, factor=1.0)
    expected = round_to_grid(x.detach().float(), torch.tensor(0.01), -128, 127).bfloat16()
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)
    found.sum().backward()
    assert x.grad.dtype == torch.bfloat16
    assert scale.grad.dtype == torch.float32
    _, _, slope = lsq(x.detach().float().numpy(), np.float32(0.01), -128, 127)
    assert scale.grad.item() == pytest.approx(slope.sum(), rel=1e-3)


def test_channels_last_stays_channels_last() -> None:
    x = values(0, (2, 3, 4, 4)).contiguous(memory_format=torch.channels_last)
    assert round_to_grid(x, torch.tensor(0.1), -7, 7).is_contiguous(memory_format=torch.channels_last)


def test_nan_is_not_hidden() -> None:
    assert round_to_grid(torch.tensor([float("nan")]), torch.tensor(0.1), -7, 7).isnan().all()


@pytest.mark.parametrize(
    ("value", "gradient", "expected"),
    [(2.0, 1.0, 1.0), (2.0, -1.0, -1.0), (0.5, 1.0, 0.0), (0.5, -1.0, -1.0), (1.0, 1.0, 1.0)],
)
def test_a_scale_below_the_least_can_only_rise(value: float, gradient: float, expected: float) -> None:
    leaf = torch.tensor(value, requires_grad=True)
    held = at_least(leaf, 1.0)
    held.backward(torch.tensor(gradient))
    assert held.item() == max(value, 1.0)
    assert leaf.grad.item() == expected
