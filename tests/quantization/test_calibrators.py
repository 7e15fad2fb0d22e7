"""The calibrators against plain statements of what they choose."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.documents.quantization import Calibrator
from edgekd.quantization.calibrators import reach
from edgekd.quantization.histogram import Magnitudes

CALIBRATORS: tuple[Calibrator, ...] = ("max", "percentile", "entropy", "mse")
every = pytest.mark.parametrize("calibrator", CALIBRATORS)
CODES = (127, 255)


def observed(x: np.ndarray) -> Magnitudes:
    magnitudes = Magnitudes()
    magnitudes.add(torch.from_numpy(np.asarray(x, np.float32)))
    return magnitudes


def sample(kind: str, count: int = 40_000, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    match kind:
        case "normal":
            values = generator.standard_normal(count)
        case "relu":
            values = np.maximum(generator.standard_normal(count), 0)
        case "laplace":
            values = generator.laplace(size=count)
        case "uniform":
            values = generator.uniform(-1, 1, count)
        case _:
            values = generator.standard_t(3, count)
    return values.astype(np.float32)


KINDS = ("normal", "relu", "laplace", "uniform", "heavy")


def test_max_is_the_largest_magnitude() -> None:
    assert reach(observed(np.array([1.0, -7.5, 3.0])), "max", codes=127) == 7.5


@pytest.mark.parametrize("kind", KINDS)
def test_the_percentile_is_the_nearest_rank_up_to_a_bin(kind: str) -> None:
    x = sample(kind)
    exact = np.sort(np.abs(x))[math.ceil(0.9999 * len(x)) - 1]
    found = observed(x)
    assert exact <= reach(found, "percentile", codes=127) <= exact + found.width


def test_of_fewer_than_ten_thousand_values_the_percentile_is_the_largest() -> None:
    few, many = sample("normal", 9_999), sample("normal", 20_000)
    assert reach(observed(few), "percentile", codes=127) == np.abs(few).max()
    assert reach(observed(many), "percentile", codes=127) < np.abs(many).max()


def squared_error(x: np.ndarray, reached: float, codes: int) -> float:
    step = reached / codes
    magnitudes = np.abs(x.astype(np.float64))
    return float(np.sum((magnitudes - step * np.minimum(np.rint(magnitudes / step), codes)) ** 2))


@pytest.mark.parametrize("codes", CODES)
@pytest.mark.parametrize("kind", KINDS)
def test_mse_has_the_least_error_of_all_reaches(kind: str, codes: int) -> None:
    x = sample(kind)
    found = reach(observed(x), "mse", codes=codes)
    amax = float(np.abs(x).max())
    least = min(squared_error(x, amax * part / 1000, codes) for part in range(50, 1001))
    assert squared_error(x, found, codes) <= 1.01 * least
    assert found <= amax


def divergence(counts: list[float], bins: int, levels: int) -> float:
    """KL between the clipped histogram and its merged levels, bin by bin."""
    clipped = counts[:bins]
    merged = [0.0] * bins
    for level in range(levels):
        members = range(level * bins // levels, (level + 1) * bins // levels)
        filled = [i for i in members if counts[i] > 0]
        for i in filled:
            merged[i] = sum(counts[j] for j in members) / len(filled)
    clipped = [*clipped[:-1], clipped[-1] + sum(counts[bins:])]
    total, merged_total, result = sum(clipped), sum(merged), 0.0
    for p, q in zip(clipped, merged, strict=True):
        if p > 0 and q == 0:
            return math.inf
        if p > 0:
            result += p / total * math.log((p / total) / (q / merged_total))
    return result


@pytest.mark.parametrize("kind", ["relu", "heavy"])
def test_entropy_has_the_least_divergence(kind: str) -> None:
    x = sample(kind, 20_000)
    width = 2 * observed(x).width
    bins = np.floor(np.abs(x) / width).astype(int)
    counts = [float(count) for count in np.bincount(bins)]
    counts[0] = counts[1]
    least = next(i for i in range(len(counts)) if sum(counts[: i + 1]) >= 0.99 * sum(counts)) + 1
    tried = [*range(max(least, 128), len(counts), 16), len(counts)]
    best = min(tried, key=lambda bins: divergence(counts, bins, 128))
    assert reach(observed(x), "entropy", codes=127) == min(best * width, float(np.abs(x).max()))


def test_entropy_does_not_clip_what_is_brighter_than_a_background() -> None:
    """An image's background is one value; left to itself, the divergence clips everything above it."""
    pixels = sample("uniform", 20_000) * 0.5 + 1.5
    x = np.concatenate([np.full(20_000, 0.81, np.float32), pixels])
    assert reach(observed(x), "entropy", codes=127) >= np.quantile(x, 0.985)


@every
@pytest.mark.parametrize("codes", CODES)
def test_nothing_reaches_beyond_the_largest_magnitude(calibrator: Calibrator, codes: int) -> None:
    for kind in KINDS:
        x = sample(kind, 3_000)
        assert 0 < reach(observed(x), calibrator, codes=codes) <= np.abs(x).max()


@every
@settings(max_examples=15, deadline=None)
@given(exponent=st.integers(-6, 12), kind=st.sampled_from(KINDS), codes=st.sampled_from(CODES))
def test_a_power_of_two_scales_the_reach_exactly(
    calibrator: Calibrator, exponent: int, kind: str, codes: int
) -> None:
    x, factor = sample(kind, 2_000), np.float32(2.0**exponent)
    scaled = reach(observed(x * factor), calibrator, codes=codes)
    assert scaled == float(factor) * reach(observed(x), calibrator, codes=codes)


@every
@settings(max_examples=15, deadline=None)
@given(factor=st.floats(0.3, 30), kind=st.sampled_from(KINDS))
def test_any_factor_scales_the_reach_up_to_the_bins(calibrator: Calibrator, factor: float, kind: str) -> None:
    x = sample(kind, 2_000)
    one, other = (reach(observed(each), calibrator, codes=127) for each in (x, x * np.float32(factor)))
    # The entropy of so few values is flat: another width of the bins moves it by several of its steps.
    assert other / factor == pytest.approx(one, rel=0.35 if calibrator == "entropy" else 0.05)


@pytest.mark.parametrize("calibrator", ["percentile", "entropy", "mse"])
def test_one_outlier_among_many_values_is_clipped(calibrator: Calibrator) -> None:
    x = np.append(sample("normal", 100_000), np.float32(50))
    assert reach(observed(x), calibrator, codes=127) < 40


@every
def test_a_tensor_of_zeros_reaches_nothing(calibrator: Calibrator) -> None:
    assert reach(observed(np.zeros(100)), calibrator, codes=127) == 0


@every
@settings(max_examples=15, deadline=None)
@given(value=st.floats(1e-3, 1e5), count=st.integers(1, 300), codes=st.sampled_from(CODES))
def test_a_constant_is_reached(calibrator: Calibrator, value: float, count: int, codes: int) -> None:
    found = observed(np.full(count, value))
    assert reach(found, calibrator, codes=codes) == pytest.approx(found.amax, rel=1e-3)
