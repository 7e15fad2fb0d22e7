import numpy as np
import pytest

from edgekd.conversion.specs import load_spec
from edgekd.documents.common import Interval
from edgekd.documents.engine import EngineRecord
from edgekd.documents.measurement import Accuracy, Latency, Measurement, Percentile, Ratio, Subject
from edgekd.documents.parity import Parity
from edgekd.documents.recipe import Gate, Target
from edgekd.documents.run_log import Facts
from edgekd.gate.judge import Evidence, judge_target

FACTS = Facts(
    machine="x86_64",
    system="Linux",
    cpu="CPU",
    isa=("avx2",),
    cores=2,
    memory_bytes=1,
    governor=None,
    versions={},
)
SAME = Parity(count=100, top1_agreement=1, mean_difference=0, max_difference=0, logit_std=1)
PARITY = {
    "parity_top1_agreement": "pass",
    "parity_mean_difference": "pass",
    "fp32_parity_top1_agreement": "pass",
    "fp32_parity_mean_difference": "pass",
}
INTERVAL = Interval(lower=0.9, upper=1.0, confidence=0.95)


def subject(name, p50_ms, size_bytes):
    latency = Latency(
        samples=1000,
        processes=5,
        batch_size=1,
        threads=1,
        confidence=0.95,
        p50=Percentile(lower_ms=p50_ms * 0.99, value_ms=p50_ms, upper_ms=p50_ms * 1.01),
        p90=Percentile(lower_ms=p50_ms * 1.09, value_ms=p50_ms * 1.1, upper_ms=p50_ms * 1.2),
        p99=None,
        process_p50_ms=(p50_ms,) * 5,
        load_ms=1.0,
        first_ms=1.0,
    )
    accuracy = Accuracy(top1=0.95, correct=95, count=100, interval=INTERVAL)
    return Subject(
        name=name, graph_sha256="0" * 64, size_bytes=size_bytes, accuracy=accuracy, latency=latency
    )


def evidence(*, target=None, measured=True, mismatches=(), invalid=(), engine=None, reference_parity=SAME):
    ratio = Ratio(
        name="int8", reference="fp32", value=0.4, interval=Interval(lower=0.39, upper=0.41, confidence=0.9)
    )
    measurement = Measurement(
        profile="local",
        runtime="onnxruntime",
        facts=FACTS,
        subjects=(subject("fp32", 1.0, 4000), subject("int8", 0.4, 1000)),
        ratios=(ratio,),
        mismatches=mismatches,
        invalid=invalid,
    )
    correct = np.ones(1000, dtype=bool)
    return Evidence(
        target=target or Target(),
        spec=load_spec("onnxruntime"),
        candidate="int8",
        reference="fp32",
        parity=SAME,
        reference_parity=reference_parity,
        measurement=measurement if measured else None,
        correct={"fp32": correct, "int8": correct},
        engine=engine,
        not_measured="no GPU",
    )


def outcomes(gate, found):
    return {check.name: check.outcome for check in judge_target(gate, found)}


ALL = Gate(
    latency_p50_ms=0.5,
    latency_p90_ms=0.5,
    latency_p50_ratio=0.5,
    size_bytes=1000,
    size_ratio=0.25,
    top1_min=0.8,
    top1_drop_pt=1.0,
    int8_share=None,
)


def test_every_question_of_the_recipe_is_asked():
    assert outcomes(ALL, evidence()) == {
        **PARITY,
        "top1_min": "pass",
        "top1_drop_pt": "pass",
        "size_bytes": "pass",
        "size_ratio": "pass",
        "latency_p50_ms": "pass",
        "latency_p90_ms": "pass",
        "latency_p50_ratio": "pass",
    }


def test_only_parity_is_asked_when_the_recipe_asks_nothing():
    nothing = Gate(top1_drop_pt=None, int8_share=None)
    assert outcomes(nothing, evidence()) == PARITY


def test_a_bad_fp32_graph_cannot_be_a_reference():
    bad = SAME.model_copy(update={"top1_agreement": 0.9})
    assert outcomes(ALL, evidence(reference_parity=bad))["fp32_parity_top1_agreement"] == "fail"


@pytest.mark.parametrize(
    ("question", "limit"),
    [
        ("latency_p50_ms", 0.39),
        ("latency_p90_ms", 0.43),
        ("latency_p50_ratio", 0.38),
        ("size_bytes", 999),
        ("size_ratio", 0.24),
    ],
)
def test_each_budget_can_fail(question, limit):
    assert outcomes(ALL.model_copy(update={question: limit}), evidence())[question] == "fail"


def test_on_another_device_latency_is_inconclusive_even_when_it_is_over_budget():
    gate = ALL.model_copy(update={"latency_p50_ms": 0.1})
    found = outcomes(gate, evidence(mismatches=("no asimddp",)))
    assert found["device"] == found["latency_p50_ms"] == found["latency_p50_ratio"] == "inconclusive"
    assert found["top1_drop_pt"] == "inconclusive"  # kernels saturate differently
    assert found["size_ratio"] == "pass"


def test_an_accepted_device_counts():
    target = Target(accept_mismatch=True)
    gate = ALL.model_copy(update={"latency_p50_ms": 0.1})
    found = outcomes(gate, evidence(target=target, mismatches=("no asimddp",)))
    assert (found["device"], found["latency_p50_ms"]) == ("pass", "fail")


def test_a_target_that_should_have_been_measured_is_inconclusive():
    checks = judge_target(ALL, evidence(measured=False))
    assert [(check.name, check.outcome, check.reason) for check in checks[4:]] == [
        ("measured", "inconclusive", "no GPU")
    ]


def test_a_target_that_need_not_be_measured_is_judged_on_its_proof():
    engine = EngineRecord(graph_sha256="0" * 64, sm=89, status="built", note="built")
    found = outcomes(ALL, evidence(target=Target(measure=False), measured=False, engine=engine))
    assert found == {**PARITY, "engine": "pass"}


def test_what_was_timed_on_a_disturbed_device_neither_passes_nor_fails():
    gate = Gate(latency_p50_ms=0.1, latency_p50_ratio=0.9, size_bytes=1000, top1_drop_pt=1.0, int8_share=None)
    calm = outcomes(gate, evidence())
    assert (calm["latency_p50_ms"], calm["latency_p50_ratio"]) == ("fail", "pass")
    found = outcomes(gate, evidence(invalid=("it was throttled",)))
    timed = dict.fromkeys(("latency_p50_ms", "latency_p50_ratio"), "inconclusive")
    assert found == {**calm, **timed}
    (check,) = [one for one in judge_target(gate, evidence(invalid=("a", "b"))) if one.unit == "ms"]
    assert check.reason.startswith("a; b; ")
