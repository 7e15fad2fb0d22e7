"""The gate's questions, each a pure function from figures to a Check.

A budget is judged on the end of the confidence interval that is against us: it passes when that end keeps it,
fails when even the other end breaks it, and is inconclusive between.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.documents.audit import Audit
from edgekd.documents.engine import EngineRecord
from edgekd.documents.measurement import Accuracy, Percentile, Ratio
from edgekd.documents.parity import Parity
from edgekd.documents.spec import ParityLimits
from edgekd.documents.verdict import Check, Outcome
from edgekd.stats import paired_drop_upper, resolvable_drop
from edgekd.units import format_percent, format_points


@dataclass(frozen=True)
class Judge:
    """Makes checks for one target."""

    target: str
    confidence: float

    def at_most(
        self, name: str, value: float, *, lower: float, upper: float, limit: float, unit: str
    ) -> Check:
        """A figure with its interval against a limit that it must not exceed."""
        outcome: Outcome = "pass" if upper <= limit else "fail" if lower > limit else "inconclusive"
        reason = {
            "pass": "the whole interval is within the limit",
            "fail": "the whole interval is beyond the limit",
            "inconclusive": "the interval straddles the limit: measure longer, or move the limit",
        }[outcome]
        bound = lower if outcome == "fail" else upper
        return self.check(name, value, limit, outcome, reason, bound=bound, unit=unit)

    def exactly(
        self, name: str, value: float, *, limit: float, passed: bool, reason: str, unit: str = ""
    ) -> Check:
        """A figure without noise against a limit."""
        return self.check(name, value, limit, "pass" if passed else "fail", reason, unit=unit)

    def check(
        self,
        name: str,
        value: float | None,
        limit: float,
        outcome: Outcome,
        reason: str,
        *,
        bound: float | None = None,
        unit: str = "",
    ) -> Check:
        """A check of this target."""
        return Check(
            name=name,
            target=self.target,
            value=value,
            bound=bound,
            limit=limit,
            unit=unit,
            outcome=outcome,
            reason=reason,
        )

    def not_measured(self, name: str, limit: float, reason: str, unit: str = "") -> Check:
        """A check that was asked for and could not be made."""
        return self.check(name, None, limit, "inconclusive", reason, unit=unit)


def check_latency(judge: Judge, name: str, percentile: Percentile | None, limit_ms: float) -> Check:
    """An absolute latency budget, on the bounds of the percentile."""
    if percentile is None:
        return judge.not_measured(name, limit_ms, "too few samples carry this percentile", "ms")
    return judge.at_most(
        name,
        percentile.value_ms,
        lower=percentile.lower_ms,
        upper=percentile.upper_ms,
        limit=limit_ms,
        unit="ms",
    )


def check_latency_ratio(judge: Judge, ratio: Ratio | None, limit: float) -> Check:
    """Int8 latency over that of the fp32 student, measured side by side."""
    name = "latency_p50_ratio"
    if ratio is None:
        return judge.not_measured(name, limit, "the two were not measured side by side", "x")
    return judge.at_most(
        name, ratio.value, lower=ratio.interval.lower, upper=ratio.interval.upper, limit=limit, unit="x"
    )


def check_size(judge: Judge, size_bytes: int, limit_bytes: int) -> Check:
    """The graph's size against a budget in bytes."""
    passed = size_bytes <= limit_bytes
    reason = f"{size_bytes} bytes of {limit_bytes} allowed"
    return judge.exactly(
        "size_bytes", size_bytes, limit=limit_bytes, passed=passed, reason=reason, unit="bytes"
    )


def check_size_ratio(judge: Judge, size_bytes: int, reference_bytes: int, limit: float) -> Check:
    """The graph's size over that of the fp32 student."""
    ratio = size_bytes / reference_bytes
    reason = f"{ratio:.2f} of the fp32 student's {reference_bytes} bytes"
    return judge.exactly("size_ratio", ratio, limit=limit, passed=ratio <= limit, reason=reason, unit="x")


def check_top1(judge: Judge, accuracy: Accuracy, limit: float) -> Check:
    """Top-1 on the runtime against a floor."""
    lower, upper = accuracy.interval.lower, accuracy.interval.upper
    outcome: Outcome = "pass" if lower >= limit else "fail" if upper < limit else "inconclusive"
    reason = (
        f"{format_percent(accuracy.top1)} of {accuracy.count} examples, "
        f"interval {format_percent(lower)} to {format_percent(upper)}"
    )
    return judge.check("top1_min", accuracy.top1, limit, outcome, reason, bound=lower)


def check_top1_drop(
    judge: Judge, reference_correct_N: NDArray[np.bool_], correct_N: NDArray[np.bool_], margin_pt: float
) -> Check:
    """Paired non-inferiority against the fp32 student, example by example.

    Passes when the one-sided upper bound of the drop (Tango's score bound) is below the margin; fails when
    the lower one is above it.
    """
    count = len(correct_N)
    drop = float(reference_correct_N.mean() - correct_N.mean())
    upper = paired_drop_upper(reference_correct_N, correct_N, judge.confidence)
    lower = -paired_drop_upper(correct_N, reference_correct_N, judge.confidence)
    margin = margin_pt / 100
    drop_text = f"drop {format_points(drop)} on {count} examples"
    if upper < margin:
        outcome: Outcome = "pass"
        reason = f"{drop_text}; its upper bound {format_points(upper)} is below the margin"
    elif lower > margin:
        outcome = "fail"
        reason = f"{drop_text}; even its lower bound {format_points(lower)} is beyond the margin"
    else:
        outcome = "inconclusive"
        discordant = float((reference_correct_N != correct_N).mean())
        least = resolvable_drop(count, max(discordant, 1 / count), judge.confidence)
        reason = (
            f"{drop_text}; its upper bound {format_points(upper)} is not below the margin. "
            f"{count} examples with {format_percent(discordant)} discordant "
            f"resolve about {100 * least:.2f} pt"
        )
    return judge.check("top1_drop_pt", 100 * drop, margin_pt, outcome, reason, bound=100 * upper, unit="pt")


def check_int8_share(judge: Judge, audit: Audit, limit: float) -> Check:
    """The share of weighted operators that really run in int8."""
    share = audit.int8_ops / audit.weighted_ops if audit.weighted_ops else 0.0
    floats = [operator for operator in audit.operators if operator.runs and not operator.int8]
    reason = f"{audit.int8_ops} of {audit.weighted_ops} weighted operators run in int8"
    if floats:
        reason += f"; {floats[0].name} does not: {floats[0].cause}"
    return judge.exactly("int8_share", share, limit=limit, passed=share >= limit, reason=reason)


def check_parity(
    judge: Judge, parity: Parity, limits: ParityLimits, *, of: str = "parity"
) -> tuple[Check, Check]:
    """A graph on its runtime against the network that it was made from, with the same saturation."""
    difference = parity.mean_difference / parity.logit_std if parity.logit_std else parity.mean_difference
    agreement = judge.exactly(
        f"{of}_top1_agreement",
        parity.top1_agreement,
        limit=limits.min_top1_agreement,
        passed=parity.top1_agreement >= limits.min_top1_agreement,
        reason=f"the same top class on {format_percent(parity.top1_agreement)} of {parity.count} examples",
    )
    logits = judge.exactly(
        f"{of}_mean_difference",
        difference,
        limit=limits.max_mean_logit_difference,
        passed=difference <= limits.max_mean_logit_difference,
        reason=f"logits differ by {difference:.2g} of their standard deviation on average, "
        f"at most by {parity.max_difference:.2g}",
        unit="std",
    )
    return agreement, logits


def check_engine(judge: Judge, engine: EngineRecord) -> Check | None:
    """Whether TensorRT takes the graph; None where nothing could be tried on this host."""
    if engine.status == "not-run":
        return None
    rejected = engine.status == "rejected"
    return judge.exactly("engine", float(not rejected), limit=1.0, passed=not rejected, reason=engine.note)


def check_device(judge: Judge, mismatches: tuple[str, ...], *, accepted: bool) -> Check | None:
    """Whether the device is the profile's; None where it is."""
    if not mismatches:
        return None
    reason = "; ".join(mismatches)
    if accepted:
        return judge.check("device", len(mismatches), 0, "pass", f"accepted by the recipe: {reason}")
    hint = "measure on the device, or set accept_mismatch = true on the target"
    return judge.check("device", len(mismatches), 0, "inconclusive", f"{reason}. {hint}")
