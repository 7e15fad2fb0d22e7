"""When a comparison of two latencies ends, and what it then says: a test at looks that are fixed beforehand.

What is given is one ratio from each fresh process. The interval is that of Wilcoxon's signed-rank test over
their logs. Where two graphs are one and the same it is exact whatever the noise: nothing then tells one from
the other, so that a ratio and its inverse are equally likely. It asks for no shape, and is moved little by
the few processes that are far off.

A look k spends a part a_k of a = 1 - confidence: its bounds have the confidence 1 - a_k each, and by Boole's
inequality the chance that a bound of any look misses is at most the sum of the parts, a. So the interval
holds with its confidence wherever the comparison ends. When time is up there is one early look, on what the
next one would have spent; time runs alike for both graphs, so that it is no look at the answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from edgekd.stats import hodges_lehmann, signed_rank_interval

LOOKS = (8, 12, 18, 27)
"""Processes after which the comparison may end."""
SPENT = (0.4, 0.2, 0.2, 0.2)
"""Share of 1 - confidence that each look spends. The bounds of 8 processes take 1 / 256: 0.4 of 0.01."""
MOST_CONFIDENCE = 0.99

Outcome = Literal["slower", "faster", "no difference", "undecided"]


@dataclass(frozen=True)
class Finding:
    """Where a comparison ended."""

    ratio: float
    lower: float
    upper: float
    outcome: Outcome


def look_until_decided(
    measure: Callable[[], float],
    *,
    confidence: float,
    margin: float,
    goes_on: Callable[[int], bool] = lambda done: True,
) -> Finding:
    """Measure ratios, one fresh process each, up to the first look that decides.

    `confidence` is of each bound, one-sided. A ratio from 1 / (1 + margin) to 1 + margin counts as no
    difference. `goes_on` is asked after so many processes, from the first look on, whether time is left.
    """
    if not 0.5 <= confidence <= MOST_CONFIDENCE:
        raise ValueError(f"a confidence from 0.5 to {MOST_CONFIDENCE} is expected: 8 processes carry no more")
    ratios: list[float] = []
    finding = Finding(1.0, 0.0, math.inf, "undecided")
    for look, share in zip(LOOKS, SPENT, strict=True):
        while len(ratios) < look and (len(ratios) < LOOKS[0] or goes_on(len(ratios))):
            ratios.append(measure())
        finding = _look(ratios, 1 - share * (1 - confidence), margin) or finding
        if finding.outcome != "undecided" or len(ratios) < look:
            break
    return finding


def _look(ratios: list[float], confidence: float, margin: float) -> Finding | None:
    """What the processes so far say; None where they are too few for the confidence of this look."""
    logs = np.log(ratios)
    bounds = signed_rank_interval(logs, confidence)
    if bounds is None:
        return None
    lower, upper = math.exp(bounds[0]), math.exp(bounds[1])
    return Finding(math.exp(hodges_lehmann(logs)), lower, upper, _outcome(lower, upper, margin))


def _outcome(lower: float, upper: float, margin: float) -> Outcome:
    most, least = 1 + margin, 1 / (1 + margin)
    if lower > most:
        return "slower"
    if upper < least:
        return "faster"
    return "no difference" if least <= lower and upper <= most else "undecided"
