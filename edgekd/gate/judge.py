"""From a target's figures to its checks: which questions the recipe asks, and of which figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.engine import EngineRecord
from edgekd.documents.measurement import Measurement, Subject
from edgekd.documents.parity import Parity
from edgekd.documents.recipe import Gate, Target
from edgekd.documents.spec import Spec
from edgekd.documents.verdict import Check
from edgekd.gate import checks
from edgekd.gate.checks import Judge


@dataclass(frozen=True)
class Evidence:
    """All that is known of one target."""

    target: Target
    spec: Spec
    candidate: str
    """Name of the subject that ships."""
    reference: str
    """Name of the fp32 student's subject."""
    parity: Parity
    """The shipped graph against the fake-quantized student, on its runtime where it was measured."""
    reference_parity: Parity
    """The fp32 student's graph against the fp32 student."""
    measurement: Measurement | None
    """None when the target was not measured."""
    correct: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)
    """Per subject, which test examples it answers correctly on the runtime, in one order."""
    engine: EngineRecord | None = None
    not_measured: str = ""
    """Why there is no measurement although the recipe asks for one."""

    @property
    def name(self) -> str:
        """`PROFILE/RUNTIME`."""
        return self.target.name

    def subject(self, name: str) -> Subject:
        """One measured graph."""
        assert self.measurement is not None
        return next(subject for subject in self.measurement.subjects if subject.name == name)


def judge_target(gate: Gate, evidence: Evidence) -> tuple[Check, ...]:
    """Every check that the recipe asks of one target."""
    judge = Judge(evidence.name, gate.confidence)
    return tuple(_checks(judge, gate, evidence))


def _checks(judge: Judge, gate: Gate, evidence: Evidence) -> Iterator[Check]:
    yield from checks.check_parity(judge, evidence.parity, evidence.spec.parity)
    yield from checks.check_parity(judge, evidence.reference_parity, evidence.spec.parity, of="fp32_parity")
    if evidence.engine is not None and (check := checks.check_engine(judge, evidence.engine)):
        yield check
    if evidence.measurement is None:
        if evidence.target.measure:
            yield judge.not_measured("measured", 1.0, evidence.not_measured)
        return
    accepted = evidence.target.accept_mismatch
    mismatches = evidence.measurement.mismatches
    if check := checks.check_device(judge, mismatches, accepted=accepted):
        yield check
    yield from _size(judge, gate, evidence)
    timed = _latency(judge, gate, evidence)
    if invalid := evidence.measurement.invalid:
        timed = (_doubted(check, "; ".join(invalid)) for check in timed)
    for check in (*_accuracy(judge, gate, evidence), *timed):
        elsewhere = "measured on another device than the profile's"
        yield check if accepted or not mismatches else _doubted(check, elsewhere)


def _accuracy(judge: Judge, gate: Gate, evidence: Evidence) -> Iterator[Check]:
    subject = evidence.subject(evidence.candidate)
    if gate.top1_min is not None and subject.accuracy is not None:
        yield checks.check_top1(judge, subject.accuracy, gate.top1_min)
    if gate.top1_drop_pt is not None:
        reference, candidate = evidence.correct[evidence.reference], evidence.correct[evidence.candidate]
        yield checks.check_top1_drop(judge, reference, candidate, gate.top1_drop_pt)
    int8 = evidence.target.precision == "int8"
    if int8 and gate.int8_share is not None and subject.audit is not None:
        yield checks.check_int8_share(judge, subject.audit, gate.int8_share)


def _size(judge: Judge, gate: Gate, evidence: Evidence) -> Iterator[Check]:
    size_bytes = evidence.subject(evidence.candidate).size_bytes
    if gate.size_bytes is not None:
        yield checks.check_size(judge, size_bytes, gate.size_bytes)
    if gate.size_ratio is not None:
        reference_bytes = evidence.subject(evidence.reference).size_bytes
        yield checks.check_size_ratio(judge, size_bytes, reference_bytes, gate.size_ratio)


def _latency(judge: Judge, gate: Gate, evidence: Evidence) -> Iterator[Check]:
    assert evidence.measurement is not None
    latency = evidence.subject(evidence.candidate).latency
    if gate.latency_p50_ms is not None:
        p50 = None if latency is None else latency.p50
        yield checks.check_latency(judge, "latency_p50_ms", p50, gate.latency_p50_ms)
    if gate.latency_p90_ms is not None:
        p90 = None if latency is None else latency.p90
        yield checks.check_latency(judge, "latency_p90_ms", p90, gate.latency_p90_ms)
    if gate.latency_p50_ratio is not None:
        pair = (evidence.candidate, evidence.reference)
        found = [ratio for ratio in evidence.measurement.ratios if (ratio.name, ratio.reference) == pair]
        yield checks.check_latency_ratio(judge, found[0] if found else None, gate.latency_p50_ratio)


def _doubted(check: Check, why: str) -> Check:
    """A check whose value does not count: neither passed nor failed."""
    return check.model_copy(update={"outcome": "inconclusive", "reason": f"{why}; {check.reason}"})
