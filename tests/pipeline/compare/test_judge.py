"""The findings of a comparison, from made-up answers: means, spreads, differences, words and flags."""

import json
import statistics

import numpy as np
import pytest
from scipy import stats

from edgekd.documents.recipe import Recipe
from edgekd.documents.run import StageFile
from edgekd.pipeline.compare.arms import read_arms
from edgekd.pipeline.compare.judge import CORRECT, Trained, Training, judge
from edgekd.pipeline.run_folder import Stage

RECIPE = Recipe.parse({"schema": 1, "name": "made-up"}, where="made up")
ARMS = {arm.name: arm for arm in read_arms("kd,pskd,recipe", RECIPE)}
COUNT = 400


@pytest.fixture
def trained(tmp_path):
    def make(name, *shares, seed=0, flags=(), head_seconds=()):
        """An arm that is right on the first of the examples of a shuffled test set, one share a seed."""
        order = np.random.default_rng(seed).permutation(COUNT)
        trainings = []
        for number, share in enumerate(shares):
            correct_N = np.zeros(COUNT, dtype=bool)
            correct_N[order[: round(share * COUNT)]] = True
            folder = tmp_path / f"{name}-{number}"
            folder.mkdir()
            np.save(folder / CORRECT, correct_N)
            history = [{"seconds": 2.0}, {"seconds": 3.0 + number}]
            result = {"validation_top1": 0.5, "best_epoch": 2, "history": history, "flags": list(flags)}
            (folder / "result.json").write_text(json.dumps(result))
            trainings.append(Training(number, stage(folder), stage(folder)))
        return Trained(ARMS[name], tuple(trainings), tuple(stage(tmp_path, one) for one in head_seconds))

    return make


def stage(folder, seconds=99.0):
    return Stage(folder, StageFile(name="made up", key="0", ingredients={}, seconds=seconds, files={}))


def test_an_arm_by_itself(trained):
    (ce,), flags = judge([trained("ce", 0.5, 0.6, 0.7)])
    assert (ce.name, ce.teacher, flags) == ("ce", "none", ())
    assert [(one.seed, one.test_top1) for one in ce.seeds] == [(0, 0.5), (1, 0.6), (2, 0.7)]
    assert ce.test_top1 == pytest.approx(0.6)
    assert ce.spread == pytest.approx(statistics.stdev([0.5, 0.6, 0.7]))
    assert ([one.seconds for one in ce.seeds], ce.seconds) == ([5.0, 6.0, 7.0], 6.0)
    assert (ce.head_seconds, ce.differences) == (0.0, ())


def test_one_seed_has_no_spread(trained):
    (ce, kd), _ = judge([trained("ce", 0.5), trained("kd", 0.7)])
    assert (ce.spread, kd.spread, kd.differences[0].seed_error) == (None, None, None)


def test_the_difference_is_this_arm_less_the_other_seed_by_seed(trained):
    """The examples that kd is right on contain those of ce: the difference of an example is known."""
    (_, kd), _ = judge([trained("ce", 0.50, 0.52, 0.51), trained("kd", 0.70, 0.71, 0.75)])
    (difference,) = kd.differences
    by_seed = [0.20, 0.19, 0.24]
    assert (difference.to, difference.finding) == ("ce", "above")
    assert difference.mean == pytest.approx(statistics.fmean(by_seed))
    assert difference.seed_error == pytest.approx(stats.sem(by_seed))
    assert difference.interval.confidence == 0.95
    middle = (difference.interval.lower + difference.interval.upper) / 2
    half = (difference.interval.upper - difference.interval.lower) / 2
    error = np.hypot(difference.seed_error, difference.example_error)
    assert middle == pytest.approx(difference.mean)
    assert half == pytest.approx(stats.t.ppf(0.975, difference.degrees) * error)


@pytest.mark.parametrize(
    ("share", "finding"), [(0.8, "above"), (0.2, "below"), (0.505, "cannot tell"), (0.5, "cannot tell")]
)
def test_the_finding(trained, share, finding):
    (_, kd), _ = judge([trained("ce", 0.5, 0.5), trained("kd", share, share)])
    assert kd.differences[0].finding == finding


def test_arms_stand_beside_ce_and_kd(trained):
    arms = [trained("ce", 0.5), trained("random-teacher", 0.4), trained("kd", 0.6), trained("pskd", 0.7)]
    results, _ = judge(arms)
    assert {arm.name: [one.to for one in arm.differences] for arm in results} == {
        "ce": ["kd"],
        "random-teacher": ["ce", "kd"],
        "kd": ["ce"],
        "pskd": ["ce", "kd"],
    }
    assert [arm.teacher for arm in results] == ["none", "untrained", "trained", "none"]
    assert results[3].differences[1].mean == pytest.approx(0.1)


def test_the_heads_of_an_arm_are_counted_once(trained):
    (_, recipe), _ = judge([trained("ce", 0.5), trained("recipe", 0.5, head_seconds=(1.5, 2.0))])
    assert recipe.head_seconds == 3.5


def test_a_trained_teacher_that_is_no_better_than_a_random_one_is_flagged(trained):
    arms = [trained("ce", 0.5), trained("random-teacher", 0.605), trained("kd", 0.6)]
    _, flags = judge(arms)
    (_, _, kd), _ = judge(arms)
    assert len(flags) == 1
    assert flags[0].startswith(
        "a trained teacher is not shown to help here: kd is at -0.50 pt to random-teacher ("
    )
    assert kd.differences[0].finding == "above"  # it beats ce all the same


def test_a_trained_teacher_that_helps_is_not(trained):
    _, flags = judge([trained("ce", 0.5), trained("random-teacher", 0.5), trained("kd", 0.6)])
    assert flags == ()


def test_without_kd_the_control_says_nothing(trained):
    _, flags = judge([trained("ce", 0.5), trained("random-teacher", 0.7)])
    assert flags == ()


def test_what_a_training_flagged_is_passed_on(trained):
    _, flags = judge([trained("ce", 0.5, 0.5), trained("pskd", 0.5, 0.5, flags=("imitates",))])
    assert flags == ("pskd, seed 0: imitates", "pskd, seed 1: imitates")
