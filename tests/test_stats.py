"""Statistics against SciPy, against published numbers, by simulation of their coverage, and by properties."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import optimize
from scipy import stats as scipy_stats

from edgekd.stats import (
    hodges_lehmann,
    log_t_interval,
    min_samples,
    nearest_rank,
    order_statistic_upper,
    paired_difference,
    paired_drop_upper,
    resolvable_drop,
    signed_rank_interval,
    spearman,
    t_quantile,
    two_levels,
    wilson_interval,
)

LATENCIES = st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=60)


@pytest.mark.parametrize(
    ("q", "rank"), [(0.5, 5), (0.9, 9), (0.91, 10), (0.99, 10), (0.1, 1), (0.01, 1), (0.3, 3)]
)
def test_nearest_rank_never_interpolates(q, rank):
    assert nearest_rank([10.0, 3, 7, 1, 9, 2, 8, 4, 6, 5], q) == rank


@settings(deadline=None)
@given(LATENCIES, st.floats(0.01, 0.99))
def test_nearest_rank_is_numpys_inverted_cdf(samples, q):
    assert nearest_rank(samples, q) in samples
    share = np.mean(np.asarray(samples) <= nearest_rank(samples, q))
    assert share >= q - 1e-9


@pytest.mark.parametrize(("q", "fewest"), [(0.9, 64), (0.99, 662), (0.999, 6636), (0.5, 11)])
def test_fewest_samples_of_mlperf(q, fewest):
    assert min_samples(q) == fewest
    assert order_statistic_upper(np.arange(fewest), q, 0.99) == fewest - 1
    assert order_statistic_upper(np.arange(fewest - 1), q, 0.99) is None


@pytest.mark.parametrize(
    ("count", "q", "confidence"),
    [
        (64, 0.9, 0.99),
        (1000, 0.9, 0.99),
        (1000, 0.99, 0.99),
        (10_000, 0.9, 0.99),
        (50, 0.5, 0.95),
        (4000, 0.5, 0.9),
    ],
)
def test_order_statistic_against_the_rule_as_mlperf_states_it(count, q, confidence):
    slower = 0
    while scipy_stats.binom.cdf(slower + 1, count, 1 - q) <= 1 - confidence:
        slower += 1
    assert order_statistic_upper(np.arange(1, count + 1), q, confidence) == count - slower + 1


@pytest.mark.parametrize(("count", "percent"), [(1000, 92.3), (10_000, 90.71)])
def test_percentile_that_a_p90_claim_reports(count, percent):
    assert 100 * order_statistic_upper(np.arange(1, count + 1), 0.9, 0.99) / count == pytest.approx(percent)


@settings(deadline=None)
@given(LATENCIES, st.sampled_from([0.5, 0.9]), st.sampled_from([0.9, 0.95, 0.99]))
def test_order_statistic_is_a_sample_not_below_the_percentile(samples, q, confidence):
    upper = order_statistic_upper(samples, q, confidence)
    if len(samples) < min_samples(q, confidence):
        assert upper is None
    else:
        assert upper in samples
        assert upper >= nearest_rank(samples, q)


@pytest.mark.parametrize(("q", "confidence"), [(0.5, 0.95), (0.9, 0.95), (0.9, 0.99)])
def test_coverage_of_the_order_statistic(q, confidence):
    rng = np.random.default_rng(1)
    truth = scipy_stats.lognorm.ppf(q, 0.4)
    covered = [
        order_statistic_upper(rng.lognormal(0.0, 0.4, 200), q, confidence) >= truth for _ in range(2000)
    ]
    assert np.mean(covered) >= confidence - 0.01


@pytest.mark.parametrize(("successes", "count"), [(0, 10), (10, 10), (7, 10), (9500, 10_000), (1, 1)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_wilson_against_scipy(successes, count, confidence):
    expected = scipy_stats.binomtest(successes, count).proportion_ci(2 * confidence - 1, method="wilson")
    assert wilson_interval(successes, count, confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-12
    )


@settings(deadline=None)
@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_share_and_stays_a_share(case):
    successes, count = case
    lower, upper = wilson_interval(successes, count, 0.95)
    assert 0 <= lower <= successes / count <= upper <= 1


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    """Answers of a reference and of a candidate with these counts."""
    reference = np.repeat([True, True, False, False], [both, lost, gained, neither])
    candidate = np.repeat([True, False, True, False], [both, lost, gained, neither])
    return reference, candidate


def drop_not_rejected(both: int, lost: int, gained: int, neither: int, confidence: float) -> float:
    """Tango's upper bound from its definition: the likelihood is maximized numerically for each drop."""
    count, z = both + lost + gained + neither, scipy_stats.norm.ppf(confidence)

    def gain_at(drop):
        def minus_log_likelihood(gain):
            rest = 1 - 2 * gain - drop
            return -(
                lost * np.log(gain + drop) + gained * np.log(gain) + (count - lost - gained) * np.log(rest)
            )

        bounds = (max(0, -drop) + 1e-12, (1 - drop) / 2 - 1e-12)
        return optimize.minimize_scalar(
            minus_log_likelihood, bounds=bounds, method="bounded", options={"xatol": 1e-12}
        ).x

    def score(drop):
        variance = count * (2 * gain_at(drop) + drop * (1 - drop))
        return (lost - gained - count * drop) / math.sqrt(variance) + z

    return optimize.brentq(score, (lost - gained) / count + 1e-9, 0.9)


@pytest.mark.parametrize("counts", [(480, 12, 9, 39), (400, 3, 30, 67), (50, 8, 1, 1), (9000, 210, 190, 600)])
@pytest.mark.parametrize("confidence", [0.9, 0.95])
def test_tangos_bound_from_its_definition(counts, confidence):
    expected = drop_not_rejected(*counts, confidence)
    assert paired_drop_upper(*pairs(*counts), confidence) == pytest.approx(expected, abs=2e-5)


def test_tangos_bound_without_a_discordant_pair():
    z = scipy_stats.norm.ppf(0.95)
    assert paired_drop_upper(*pairs(500, 0, 0, 40), 0.95) == pytest.approx(z**2 / (540 + z**2), abs=1e-9)


@settings(deadline=None)
@given(
    arrays(np.bool_, st.shared(st.integers(1, 80), key="n")),
    arrays(np.bool_, st.shared(st.integers(1, 80), key="n")),
    st.sampled_from([0.9, 0.95, 0.99]),
)
def test_tangos_bound_is_above_the_drop_and_grows_with_confidence(reference, candidate, confidence):
    drop = reference.mean() - candidate.mean()
    upper = paired_drop_upper(reference, candidate, confidence)
    lower = -paired_drop_upper(candidate, reference, confidence)
    assert -1 <= lower <= drop <= upper <= 1
    assert paired_drop_upper(reference, candidate, 0.999) >= upper - 1e-12


@pytest.mark.parametrize(
    ("count", "lost", "gained"), [(500, 0.02, 0.015), (540, 0.005, 0.005), (200, 0.06, 0.01)]
)
def test_coverage_of_tangos_bound(count, lost, gained):
    rng = np.random.default_rng(2)
    draws = rng.multinomial(count, [1 - lost - gained, lost, gained, 0], size=3000)
    covered = [paired_drop_upper(*pairs(*draw), 0.95) >= lost - gained for draw in draws]
    assert np.mean(covered) >= 0.94


def test_pairs_must_be_pairs():
    with pytest.raises(ValueError, match="two vectors of one length are compared"):
        paired_drop_upper(np.ones(3, bool), np.ones(4, bool), 0.95)


@pytest.mark.parametrize(
    ("count", "discordant", "margin"),
    [(19_792, 0.02, 0.0025), (1237, 0.02, 0.01), (12_370, 0.05, 0.005), (1546, 0.1, 0.02)],
)
def test_margin_that_so_many_pairs_resolve(count, discordant, margin):
    assert resolvable_drop(count, discordant, 0.95) == pytest.approx(margin, rel=1e-3)


def test_the_margin_is_resolved_with_the_power_that_is_said():
    margin, rng = resolvable_drop(2000, 0.04, 0.95, power=0.8), np.random.default_rng(3)
    draws = rng.multinomial(2000, [0.96, 0.02, 0.02, 0], size=1000)
    passed = np.mean([paired_drop_upper(*pairs(*draw), 0.95) < margin for draw in draws])
    assert passed == pytest.approx(0.8, abs=0.05)


@pytest.mark.parametrize("degrees", [1, 2, 3, 4, 5, 9, 10, 30, 101, 1000])
@pytest.mark.parametrize("probability", [0.5, 0.6, 0.9, 0.95, 0.975, 0.999])
def test_students_quantile_against_scipy(probability, degrees):
    expected = scipy_stats.t.ppf(probability, degrees)
    assert t_quantile(probability, degrees) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("probability", "degrees"), [(0.4, 3), (1.0, 3), (0.9, 0)])
def test_students_quantile_refuses_what_it_cannot(probability, degrees):
    with pytest.raises(ValueError, match="at least one degree of freedom"):
        t_quantile(probability, degrees)


@pytest.mark.parametrize("count", [2, 5, 10])
def test_interval_on_the_log_scale_against_scipy(count):
    values = np.random.default_rng(4).lognormal(0.0, 0.1, count)
    logs = np.log(values)
    expected = scipy_stats.t.interval(0.9, count - 1, logs.mean(), scipy_stats.sem(logs))
    assert log_t_interval(values, 0.95) == pytest.approx(tuple(np.exp(expected)), rel=1e-9)


def test_interval_of_equal_values_is_that_value():
    assert log_t_interval([2.0, 2.0, 2.0], 0.95) == pytest.approx((2.0, 2.0))


@pytest.mark.parametrize("disturbed", [0.0, 0.1])
def test_coverage_of_the_interval_on_the_log_scale(disturbed):
    """Processes that vary by 3 %, of which a neighbor slows a tenth by 20 %: the median is still covered."""
    rng = np.random.default_rng(5)
    values = rng.lognormal(0.0, 0.03, (4000, 5)) * np.where(rng.random((4000, 5)) < disturbed, 1.2, 1.0)
    truth = 1.0 if disturbed == 0 else float(np.median(values))
    assert np.mean([log_t_interval(row, 0.95)[1] >= truth for row in values]) >= 0.94


VALUES = st.lists(st.floats(-100, 100), min_size=1, max_size=15)


@settings(deadline=None)
@given(VALUES)
def test_hodges_lehmann_is_the_median_of_the_means_of_pairs(values):
    pairs = [(a + b) / 2 for index, a in enumerate(values) for b in values[index:]]
    assert hodges_lehmann(values) == pytest.approx(np.median(pairs), abs=1e-12)


@settings(deadline=None)
@given(VALUES, st.floats(-50, 50), st.floats(0.1, 10))
def test_hodges_lehmann_moves_and_scales_with_the_values(values, shift, scale):
    moved = [scale * value + shift for value in values]
    assert hodges_lehmann(moved) == pytest.approx(scale * hodges_lehmann(values) + shift, abs=1e-9)
    assert hodges_lehmann([-value for value in values]) == pytest.approx(-hodges_lehmann(values), abs=1e-12)


@pytest.mark.parametrize(
    ("count", "confidence"), [(6, 0.95), (8, 0.996), (12, 0.998), (20, 0.9), (27, 0.998)]
)
def test_signed_rank_bounds_are_where_scipys_exact_test_turns(count, confidence):
    values = np.random.default_rng(count).normal(0.2, 1, count)
    lower, upper = signed_rank_interval(values, confidence)
    for center, alternative, rejected in [
        (lower - 1e-6, "greater", True),
        (lower + 1e-6, "greater", False),
        (upper + 1e-6, "less", True),
        (upper - 1e-6, "less", False),
    ]:
        test = scipy_stats.wilcoxon(values - center, alternative=alternative, method="exact")
        assert bool(test.pvalue <= 1 - confidence) == rejected


@pytest.mark.parametrize(("count", "confidence"), [(5, 0.97), (7, 0.996), (8, 0.997)])
def test_too_few_values_carry_no_signed_rank_bounds(count, confidence):
    assert signed_rank_interval(np.arange(count), confidence) is None
    assert signed_rank_interval(np.arange(count), 1 - 0.5**count) == (0, count - 1)


def test_signed_rank_bounds_hold_their_level_for_any_symmetric_noise():
    """A fifth of the values spread ten times as far: 1.71 % of the bounds miss on either side.

    Of the 2^12 choices of ranks 70 have a sum of up to 12, 87 of up to 13.
    The tolerance is three standard errors.
    """
    rng = np.random.default_rng(7)
    values = rng.standard_normal((2500, 12)) * np.where(rng.random((2500, 12)) < 0.2, 10, 1)
    bounds = np.array([signed_rank_interval(row, 0.98) for row in values])
    assert np.mean(bounds[:, 0] > 0) == pytest.approx(70 / 4096, abs=0.0078)
    assert np.mean(bounds[:, 1] < 0) == pytest.approx(70 / 4096, abs=0.0078)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=3, max_size=50))
def test_spearman_against_scipy(points):
    first, second = zip(*points, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        assert spearman(first, second) == 0.0
    else:
        assert spearman(first, second) == pytest.approx(scipy_stats.spearmanr(first, second).statistic)


def test_two_levels_of_known_shapes():
    rng = np.random.default_rng(6)
    assert two_levels(rng.normal(100, 5, 20_000))[2] == pytest.approx(2 / math.pi, abs=0.02)
    assert two_levels(rng.uniform(0, 1, 20_000))[2] == pytest.approx(0.75, abs=0.02)
    low, high, explained = two_levels(np.concatenate([rng.normal(10, 0.1, 300), rng.normal(20, 0.1, 100)]))
    assert (low, high) == pytest.approx((10, 20), abs=0.1)
    assert explained > 0.99
    assert two_levels([3.0, 3.0])[2] == 0.0
    assert two_levels([3.0]) == (3.0, 3.0, 0.0)


@settings(deadline=None)
@given(st.lists(st.floats(1, 1000), min_size=2, max_size=30))
def test_two_levels_is_the_best_of_all_splits(values):
    ordered = np.sort(values)
    if ordered[-1] - ordered[0] < 1e-6:
        return
    within = min(
        float(np.sum((part - part.mean()) ** 2) + np.sum((rest - rest.mean()) ** 2))
        for part, rest in (np.split(ordered, [cut]) for cut in range(1, len(ordered)))
    )
    total = float(np.sum((ordered - ordered.mean()) ** 2))
    assert two_levels(values)[2] == pytest.approx(1 - within / total, abs=1e-6)


def answers(rng, difficulty_N, seed_spread, seeds):
    """Right or wrong, (S, N): the examples keep their difficulty, each seed shifts all of them."""
    logits_SN = difficulty_N + rng.normal(0, seed_spread, (seeds, 1))
    return rng.random(logits_SN.shape) < 1 / (1 + np.exp(-logits_SN))


def test_paired_difference_of_one_seed_is_scipys_t_interval_over_the_examples():
    rng = np.random.default_rng(1)
    reference, candidate = rng.random((1, 400)) < 0.8, rng.random((1, 400)) < 0.85
    found = paired_difference(reference, candidate, 0.975)
    test = scipy_stats.ttest_rel(candidate[0].astype(float), reference[0].astype(float))
    expected = test.confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high))
    assert found.mean == pytest.approx(candidate.mean() - reference.mean())
    assert (found.degrees, found.seed_error) == (399, None)


def test_paired_difference_adds_the_variances_of_seeds_and_examples():
    rng = np.random.default_rng(2)
    reference, candidate = rng.random((4, 200)) < 0.7, rng.random((4, 200)) < 0.75
    found = paired_difference(reference, candidate, 0.95)
    difference = candidate.astype(float) - reference.astype(float)
    by_seed = scipy_stats.sem([row.mean() for row in difference])
    by_example = scipy_stats.sem([column.mean() for column in difference.T])
    assert (found.seed_error, found.example_error) == pytest.approx((by_seed, by_example))
    squared = by_seed**2 + by_example**2
    degrees = math.floor(squared**2 / (by_seed**4 / 3 + by_example**4 / 199))
    half = scipy_stats.t.ppf(0.95, degrees) * math.sqrt(squared)
    assert (found.lower, found.upper) == pytest.approx((found.mean - half, found.mean + half))
    assert found.degrees == degrees


def test_paired_difference_of_seeds_alone_is_scipys_t_interval_over_the_seeds():
    lifted = np.repeat(np.array([[True], [False], [True]]), 50, axis=1)  # all examples of a seed alike
    found = paired_difference(np.zeros_like(lifted), lifted, 0.975)
    expected = scipy_stats.ttest_1samp([1.0, 0.0, 1.0], 0).confidence_interval(0.95)
    assert (found.lower, found.upper) == pytest.approx((expected.low, expected.high))
    assert (found.degrees, found.example_error) == (2, pytest.approx(0, abs=1e-15))


def test_paired_difference_of_an_arm_to_itself_is_nothing():
    same = np.random.default_rng(3).random((3, 100)) < 0.9
    found = paired_difference(same, same, 0.975)
    assert (found.mean, found.lower, found.upper) == (0, 0, 0)


@pytest.mark.parametrize(("seeds", "seed_spread"), [(2, 0.0), (3, 0.0), (3, 0.05), (3, 0.2), (5, 0.1)])
def test_paired_difference_holds_its_level_over_other_seeds_and_other_examples(seeds, seed_spread):
    rng = np.random.default_rng(seeds)

    def arms(count):
        difficulty_N = rng.normal(1.5, 2, count)
        return difficulty_N, difficulty_N + rng.normal(0.2, 0.7, count)

    shift_N = rng.normal(0, seed_spread, 1_000_000)  # each example answered under a seed of its own
    many = [answers(rng, arm_N + shift_N, 0.0, 1).mean() for arm_N in arms(1_000_000)]
    held = 0
    for _ in range(600):
        found = paired_difference(*(answers(rng, arm_N, seed_spread, seeds) for arm_N in arms(300)), 0.975)
        held += found.lower <= many[1] - many[0] <= found.upper
    assert 0.94 < held / 600 < 0.999


def test_paired_difference_takes_tables_of_one_shape():
    with pytest.raises(ValueError, match="two tables of one shape, seeds by examples, are compared"):
        paired_difference(np.zeros((2, 5), bool), np.zeros((3, 5), bool), 0.975)
