"""Statistics of latencies and of accuracies: quantiles with bounds, intervals of proportions and of ratios,
paired differences over seeds and examples.

`confidence` is one-sided in every function: each bound that is returned holds with that confidence by itself,
so a pair (lower, upper) is a two-sided interval of confidence 2 * confidence - 1.

Sources:
    order statistics: MLPerf inference rules, appendix on early stopping, and LoadGen's early_stopping.cc
    proportions: Wilson, J. Am. Stat. Assoc. 22 (1927) 209
    paired proportions: Tango, Statistics in Medicine 17 (1998) 891
    sums of variances: Satterthwaite, Biometrics Bulletin 2 (1946) 110; Welch, Biometrika 34 (1947) 28
    Student's t: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4
    signed ranks: Wilcoxon, Biometrics Bulletin 1 (1945) 80
    their center: Hodges and Lehmann, Annals of Mathematical Statistics 34 (1963) 598
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Values = Sequence[float] | npt.NDArray[np.generic]

REFUSAL_CONFIDENCE = 0.99
"""Confidence at which a sample must be able to carry a percentile: 64 samples for p90, 662 for p99."""


def nearest_rank(samples: Values, q: float) -> float:
    """The smallest sample that at least a share `q` of the samples does not exceed; never interpolated."""
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    rank = max(1, math.ceil(q * len(ordered) - 1e-9))
    return float(ordered[rank - 1])


def order_statistic_upper(samples: Values, q: float, confidence: float) -> float | None:
    """Upper bound of the quantile `q` of independent samples of any distribution, as MLPerf's early stopping.

    With t the largest number such that P(Binomial(n, 1 - q) <= t) <= 1 - confidence, the t - 1 slowest are
    dropped and the slowest that is left is the bound. None when there is no such t >= 1: n is too small.
    """
    values = np.asarray(samples, dtype=np.float64)
    slower = _most_slower(len(values), q, confidence)
    return None if slower < 1 else float(np.sort(values)[len(values) - slower])


def min_samples(q: float, confidence: float = REFUSAL_CONFIDENCE) -> int:
    """Fewest samples that carry the quantile `q`: 64 for p90, 662 for p99, 6636 for p99.9 at 99 %."""
    enough = 2
    while _most_slower(enough, q, confidence) < 1:
        enough *= 2
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if _most_slower(middle, q, confidence) >= 1 else (middle, enough)
    return enough


def _most_slower(count: int, q: float, confidence: float) -> int:
    """Largest t with P(Binomial(count, 1 - q) <= t) <= 1 - confidence; -1 when even t = 0 is too likely."""
    slower = np.arange(count)
    steps = np.log((count - slower) / (slower + 1)) + math.log((1 - q) / q)
    log_mass = count * math.log(q) + np.concatenate([[0.0], np.cumsum(steps)])
    return int(np.searchsorted(np.cumsum(np.exp(log_mass)), 1 - confidence, side="right")) - 1


def wilson_interval(successes: int, count: int, confidence: float) -> tuple[float, float]:
    """Wilson's score bounds (lower, upper) of a proportion."""
    z2 = NormalDist().inv_cdf(confidence) ** 2
    share = successes / count
    center = (share + z2 / (2 * count)) / (1 + z2 / count)
    half = math.sqrt(z2 * (share * (1 - share) / count + z2 / (4 * count**2))) / (1 + z2 / count)
    return min(share, max(0.0, center - half)), max(share, min(1.0, center + half))


def paired_drop_upper(
    correct_reference_N: npt.NDArray[np.bool_], correct_candidate_N: npt.NDArray[np.bool_], confidence: float
) -> float:
    """Upper bound of the drop p_reference - p_candidate on the same N examples: Tango's score bound.

    It is the largest drop that a score test does not reject. Unlike Wald's bound it holds its level when few
    examples or none are discordant: without any it is z^2 / (N + z^2). The lower bound of the drop is minus
    the upper bound with the two swapped.
    """
    if correct_reference_N.shape != correct_candidate_N.shape or correct_reference_N.ndim != 1:
        raise ValueError("two vectors of one length are compared")
    lost = int(np.sum(correct_reference_N & ~correct_candidate_N))
    gained = int(np.sum(~correct_reference_N & correct_candidate_N))
    count = len(correct_reference_N)
    z = NormalDist().inv_cdf(confidence)
    return _largest(lambda drop: _tango_score(lost, gained, count, drop) >= -z, (lost - gained) / count, 1.0)


def _tango_score(lost: int, gained: int, count: int, drop: float) -> float:
    """Tango's statistic for the null hypothesis that the drop is `drop`, with his constrained estimate."""
    b = -lost - gained + (2 * count - lost + gained) * drop
    c = -gained * drop * (1 - drop)
    gain = (math.sqrt(max(0.0, b * b - 8 * count * c)) - b) / (4 * count)
    variance = count * (2 * gain + drop * (1 - drop))
    distance = lost - gained - count * drop
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance)


def resolvable_drop(count: int, discordant: float, confidence: float, power: float = 0.8) -> float:
    """Smallest margin that `count` pairs can prove with this power when there is no true drop.

    `discordant` is the share of pairs in which one of the two is right and the other wrong.
    """
    z = NormalDist().inv_cdf(confidence) + NormalDist().inv_cdf(power)
    return z * math.sqrt(discordant / count)


@dataclass(frozen=True)
class PairedDifference:
    """How much more often one way of training is right than another, with its bounds."""

    mean: float
    """Mean difference of the shares of right answers, candidate - reference."""
    lower: float
    upper: float
    degrees: int
    """Degrees of freedom of the bounds."""
    seed_error: float | None
    """Standard error from the choice of the seeds; None for one seed, which tells nothing of it."""
    example_error: float
    """Standard error from the choice of the examples."""


def paired_difference(
    correct_reference_SN: npt.NDArray[np.bool_],
    correct_candidate_SN: npt.NDArray[np.bool_],
    confidence: float,
) -> PairedDifference:
    """Difference of two ways of training: S seeds each, seed by seed alike, on the same N test examples.

    With d_s the difference of seed s and e_n that of example n, averaged over the seeds,

        SE^2 = var(d_s) / S + var(e_n) / N,    bounds: mean -+ t(degrees) SE,

    with Welch and Satterthwaite's degrees of freedom, rounded down. The bounds are about other seeds and
    other examples: a t interval over the seeds alone is blind to the luck of the test set, which all seeds
    share. They are conservative: var(d_s) / S and var(e_n) / N each hold the noise of single answers,
    sigma^2 / (S N), which the variance of the mean holds once. In simulations 95 % bounds hold 96 to 99 % of
    the time, and 93 % where two seeds differ by more than the test set can tell. With one seed the bounds
    are about other examples only.

    Args:
        correct_reference_SN: (S, N) bool, which answers of the reference are right.
        correct_candidate_SN: (S, N) bool, the same of the candidate.
        confidence: one-sided, of each bound.
    """
    if correct_reference_SN.shape != correct_candidate_SN.shape or correct_reference_SN.ndim != 2:
        raise ValueError("two tables of one shape, seeds by examples, are compared")
    seeds, examples = correct_reference_SN.shape
    difference_SN = correct_candidate_SN.astype(np.float64) - correct_reference_SN
    parts = [(float(np.var(difference_SN.mean(axis=0), ddof=1)) / examples, examples - 1)]
    if seeds > 1:
        parts.append((float(np.var(difference_SN.mean(axis=1), ddof=1)) / seeds, seeds - 1))
    mean, total = float(difference_SN.mean()), sum(variance for variance, _ in parts)
    degrees = _welch_degrees(parts)
    half = t_quantile(confidence, degrees) * math.sqrt(total)
    example_error, *seed_error = [math.sqrt(variance) for variance, _ in parts]
    return PairedDifference(
        mean, mean - half, mean + half, degrees, seed_error[0] if seed_error else None, example_error
    )


def _welch_degrees(parts: Sequence[tuple[float, int]]) -> int:
    """Whole degrees of freedom of a sum of independent variance estimates (variance, degrees)."""
    total = sum(variance for variance, _ in parts)
    spread = sum(variance**2 / degrees for variance, degrees in parts)
    most = sum(degrees for _, degrees in parts)
    return min(most, int(total**2 / spread + 1e-9)) if spread > 0 else most


def log_t_interval(values: Values, confidence: float) -> tuple[float, float]:
    """Student's bounds (lower, upper) of the center of positive values, on the log scale.

    For latencies of fresh processes and their ratios, which vary by factors. It holds from two values on,
    where bounds by ranks need five for 95 %.
    """
    logs = np.log(np.asarray(values, dtype=np.float64))
    spread = float(np.std(logs, ddof=1)) / math.sqrt(len(logs))
    half = t_quantile(confidence, len(logs) - 1) * spread
    center = float(np.mean(logs))
    return math.exp(center - half), math.exp(center + half)


def t_quantile(probability: float, degrees: int) -> float:
    """Quantile of Student's t with whole degrees of freedom, for a probability of at least 1/2."""
    if not 0.5 <= probability < 1 or degrees < 1:
        raise ValueError("a probability in [0.5, 1) and at least one degree of freedom are expected")
    above = 1.0
    while _t_central(above, degrees) < 2 * probability - 1:
        above *= 2
    return _largest(lambda t: _t_central(t, degrees) <= 2 * probability - 1, 0.0, above)


def _t_central(t: float, degrees: int) -> float:
    """P(-t < T < t) by the finite sums for odd and even degrees of freedom."""
    theta = math.atan2(t, math.sqrt(degrees))
    cosine, sine = math.cos(theta), math.sin(theta)
    odd = degrees % 2
    term = cosine if odd else 1.0
    total = 0.0 if degrees == 1 else term
    for k in range(2 + odd, degrees - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    return 2 / math.pi * (theta + sine * total) if odd else sine * total


def hodges_lehmann(values: Values) -> float:
    """Center of a symmetric distribution: the median of the means of all pairs, each value with itself too.

    Nearly as exact as the mean where the values are normal, and hardly moved by a few that are far off.
    """
    return float(np.median(_walsh_averages(values)))


def signed_rank_interval(values: Values, confidence: float) -> tuple[float, float] | None:
    """Bounds (lower, upper) of the center: the centers that Wilcoxon's signed-rank test does not reject.

    Exact for independent values of any distributions that are symmetric about one center: they need not be
    normal, nor of one spread. None when there are too few values: n carry a confidence up to 1 - 1 / 2^n.
    """
    averages = np.sort(_walsh_averages(values))
    dropped = _most_rank_sum(len(values), 1 - confidence)
    return None if dropped < 0 else (float(averages[dropped]), float(averages[-1 - dropped]))


def _walsh_averages(values: Values) -> npt.NDArray[np.float64]:
    values_N = np.asarray(values, dtype=np.float64)
    first, second = np.triu_indices(len(values_N))
    means: npt.NDArray[np.float64] = (values_N[first] + values_N[second]) / 2
    return means


def _most_rank_sum(count: int, probability: float) -> int:
    """Largest t with P(sum of the ranks 1..count, each taken or not, <= t) <= probability; -1 for none."""
    mass = np.ones(1)
    for rank in range(1, count + 1):
        mass = (np.concatenate([mass, np.zeros(rank)]) + np.concatenate([np.zeros(rank), mass])) / 2
    return int(np.searchsorted(np.cumsum(mass), probability * (1 + 1e-9), side="right")) - 1


def spearman(first: Values, second: Values) -> float:
    """Spearman's rank correlation, ties at their mean rank; 0 when one of the two does not vary."""
    a, b = _ranks(first), _ranks(second)
    a, b = a - a.mean(), b - b.mean()
    norm = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / norm if norm > 0 else 0.0


def _ranks(values: Values) -> npt.NDArray[np.float64]:
    _, inverse, counts = np.unique(np.asarray(values), return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    mean_rank: npt.NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return mean_rank


def two_levels(values: Values) -> tuple[float, float, float]:
    """The best split of values into a low and a high group: their means, and the share of variance explained.

    It is about 0.64 of a single bell, 0.75 of a flat distribution, nearly 1 of two distinct levels.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    count, total = len(ordered), float(np.sum((ordered - ordered.mean()) ** 2))
    if count < 2 or total == 0:
        return float(ordered[0]), float(ordered[-1]), 0.0
    low = np.cumsum(ordered)[:-1]
    size = np.arange(1, count)
    low_mean, high_mean = low / size, (ordered.sum() - low) / (count - size)
    between = size * (count - size) / count * (high_mean - low_mean) ** 2
    best = int(np.argmax(between))
    return float(low_mean[best]), float(high_mean[best]), float(between[best]) / total


def _largest(holds: Callable[[float], bool], lower: float, upper: float) -> float:
    """Upper end of where `holds` is true, by bisection from a `lower` at which it is."""
    for _ in range(200):
        middle = (lower + upper) / 2
        if middle in (lower, upper):
            break
        lower, upper = (middle, upper) if holds(middle) else (lower, middle)
    return upper
