"""The verdict: pass, fail or inconclusive, with the check that decided it."""

from __future__ import annotations

from typing import ClassVar, Literal

from edgekd.documents.base import Document, Section

Outcome = Literal["pass", "fail", "inconclusive"]

EXIT_CODES: dict[Outcome, int] = {"pass": 0, "fail": 1, "inconclusive": 5}


class Check(Section):
    """One question of the gate, and its answer."""

    name: str
    """What was checked, such as `latency_p50_ms`."""
    target: str
    """The target, `PROFILE/RUNTIME`."""
    value: float | None
    """What was measured; null when it was not."""
    bound: float | None = None
    """The end of its confidence interval that was judged."""
    limit: float
    """What was allowed."""
    unit: str = ""
    """Unit of value, bound and limit."""
    outcome: Outcome
    """The answer."""
    reason: str
    """The answer in a sentence."""


class Verdict(Document):
    """Pass, fail or inconclusive."""

    title: ClassVar[str] = "verdict"

    verdict: Outcome
    """The answer: fail if a check failed, else inconclusive if one was, else pass."""
    checks: tuple[Check, ...]
    """The checks, failed ones included."""


def combine(checks: tuple[Check, ...]) -> Verdict:
    """The verdict of some checks: the worst of their outcomes; no check at all is inconclusive."""
    outcomes = {check.outcome for check in checks}
    worst: Outcome = "fail" if "fail" in outcomes else "inconclusive" if outcomes != {"pass"} else "pass"
    return Verdict(verdict=worst, checks=checks)
