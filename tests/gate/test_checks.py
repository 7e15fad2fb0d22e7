import numpy as np
import pytest

from edgekd.documents.audit import Audit, AuditedOperator
from edgekd.documents.common import Interval
from edgekd.documents.engine import EngineRecord
from edgekd.documents.measurement import Accuracy, Percentile, Ratio
from edgekd.documents.parity import Parity
from edgekd.documents.spec import ParityLimits
from edgekd.documents.verdict import EXIT_CODES, Check, combine
from edgekd.gate import checks
from edgekd.gate.checks import Judge

JUDGE = Judge("local/onnxruntime", 0.95)


@pytest.mark.parametrize(
    ("lower_ms", "upper_ms", "outcome", "bound_ms"),
    [(0.8, 1.0, "pass", 1.0), (0.8, 1.01, "inconclusive", 1.01), (1.01, 1.1, "fail", 1.01)],
)
def test_a_latency_budget_is_judged_on_the_bounds(lower_ms, upper_ms, outcome, bound_ms):
    value_ms = (lower_ms + upper_ms) / 2
    found = Percentile(lower_ms=lower_ms, value_ms=value_ms, upper_ms=upper_ms)
    check = checks.check_latency(JUDGE, "latency_p50_ms", found, 1.0)
    assert check.outcome == outcome
    assert (check.value, check.bound, check.limit, check.unit) == (value_ms, bound_ms, 1.0, "ms")


def test_a_percentile_that_n_cannot_carry_is_inconclusive():
    check = checks.check_latency(JUDGE, "latency_p90_ms", None, 1.0)
    assert (check.outcome, check.value) == ("inconclusive", None)
    assert check.reason == "too few samples carry this percentile"


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"), [(0.3, 0.4, "pass"), (0.35, 0.45, "inconclusive"), (0.41, 0.45, "fail")]
)
def test_a_ratio_is_judged_on_its_whole_interval(lower, upper, outcome):
    interval = Interval(lower=lower, upper=upper, confidence=0.9)
    ratio = Ratio(name="a", reference="b", value=0.4, interval=interval)
    assert checks.check_latency_ratio(JUDGE, ratio, 0.4).outcome == outcome


def test_a_ratio_that_was_not_measured_is_inconclusive():
    assert checks.check_latency_ratio(JUDGE, None, 0.4).outcome == "inconclusive"


@pytest.mark.parametrize(("size", "outcome"), [(100, "pass"), (101, "fail")])
def test_size(size, outcome):
    assert checks.check_size(JUDGE, size, 100).outcome == outcome
    assert checks.check_size_ratio(JUDGE, size, 200, 0.5).outcome == outcome


@pytest.mark.parametrize(
    ("lower", "upper", "outcome"), [(0.9, 0.95, "pass"), (0.89, 0.95, "inconclusive"), (0.8, 0.89, "fail")]
)
def test_a_floor_for_top1_is_judged_on_the_lower_bound(lower, upper, outcome):
    interval = Interval(lower=lower, upper=upper, confidence=0.95)
    accuracy = Accuracy(top1=0.92, correct=92, count=100, interval=interval)
    assert checks.check_top1(JUDGE, accuracy, 0.9).outcome == outcome


def answers(count, wrong):
    correct = np.ones(count, dtype=bool)
    correct[:wrong] = False
    return correct


@pytest.mark.parametrize(
    ("count", "wrong", "margin_pt", "outcome"),
    [
        (10_000, 0, 0.5, "pass"),  # nothing differs
        (10_000, 20, 0.5, "pass"),  # a drop of 0.2 pt is resolved by 10,000 examples
        (10_000, 100, 0.5, "fail"),  # a drop of 1 pt is
        (10_000, 50, 0.5, "inconclusive"),  # at the margin
        (300, 0, 0.5, "inconclusive"),  # 300 examples cannot tell 0.5 pt, even without a difference
    ],
)
def test_a_drop_is_judged_example_by_example(count, wrong, margin_pt, outcome):
    check = checks.check_top1_drop(JUDGE, answers(count, 0), answers(count, wrong), margin_pt)
    assert check.outcome == outcome
    assert check.value == pytest.approx(100 * wrong / count)


def test_an_unresolvable_margin_says_what_the_set_can_resolve():
    reason = checks.check_top1_drop(JUDGE, answers(300, 3), answers(300, 3)[::-1], 0.5).reason
    assert "300 examples with 2.00 % discordant resolve about 2.03 pt" in reason


def operator(name, *, int8, cause=None):
    runs_as = "QLinearConv" if int8 else "FusedConv"
    return AuditedOperator(name=name, op_type="Conv", int8=int8, runs_as=runs_as, cause=cause)


def audit(*operators):
    return Audit(
        graph="model.onnx",
        graph_sha256="0" * 64,
        runtime="onnxruntime",
        runtime_version="1",
        machine="x86_64",
        operators=operators,
        optimized_operators={},
    )


def test_the_int8_share_names_the_first_float_operator_and_its_cause():
    found = audit(operator("conv1", int8=True), operator("conv2", int8=False, cause="SiLU is not folded"))
    check = checks.check_int8_share(JUDGE, found, 1.0)
    assert (check.outcome, check.value) == ("fail", 0.5)
    assert check.reason == "1 of 2 weighted operators run in int8; conv2 does not: SiLU is not folded"
    assert checks.check_int8_share(JUDGE, found, 0.5).outcome == "pass"
    assert checks.check_int8_share(JUDGE, audit(), 1.0).outcome == "fail"


@pytest.mark.parametrize(
    ("agreement", "mean", "outcomes"),
    [(0.995, 0.02, ("pass", "pass")), (0.994, 0.02, ("fail", "pass")), (1.0, 0.11, ("pass", "fail"))],
)
def test_parity_is_two_checks(agreement, mean, outcomes):
    limits = ParityLimits(min_top1_agreement=0.995, max_mean_logit_difference=0.02)
    parity = Parity(count=1000, top1_agreement=agreement, mean_difference=mean, max_difference=1, logit_std=5)
    found = checks.check_parity(JUDGE, parity, limits)
    assert tuple(check.outcome for check in found) == outcomes


def engine(status):
    return EngineRecord(graph_sha256="0" * 64, sm=89, status=status, note="what was done")


def test_an_engine_is_a_check_only_where_it_was_tried():
    assert checks.check_engine(JUDGE, engine("not-run")) is None
    assert checks.check_engine(JUDGE, engine("built")).outcome == "pass"
    assert checks.check_engine(JUDGE, engine("parsed")).outcome == "pass"
    assert checks.check_engine(JUDGE, engine("rejected")).outcome == "fail"


def test_a_wrong_device_is_inconclusive_unless_accepted():
    assert checks.check_device(JUDGE, (), accepted=False) is None
    found = checks.check_device(JUDGE, ("no asimddp",), accepted=False)
    assert found.outcome == "inconclusive"
    assert found.reason == ("no asimddp. measure on the device, or set accept_mismatch = true on the target")
    assert checks.check_device(JUDGE, ("no asimddp",), accepted=True).outcome == "pass"


def check(outcome):
    return Check(name="x", target="t", value=1, limit=1, outcome=outcome, reason="")


@pytest.mark.parametrize(
    ("outcomes", "verdict", "exit_code"),
    [
        (("pass", "pass"), "pass", 0),
        (("pass", "inconclusive"), "inconclusive", 5),
        (("inconclusive", "fail", "pass"), "fail", 1),
        ((), "inconclusive", 5),
    ],
)
def test_the_verdict_is_the_worst_outcome(outcomes, verdict, exit_code):
    found = combine(tuple(check(outcome) for outcome in outcomes)).verdict
    assert (found, EXIT_CODES[found]) == (verdict, exit_code)
