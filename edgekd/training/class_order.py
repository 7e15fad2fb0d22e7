"""Class order: a teacher that was made elsewhere must number the classes as the task does.

Formula
    On one half of the examples: the permutation pi of the teacher's answers that makes most of them right
    (assignment problem on the K x K table of labels and answers). On the other half: a, its top-1 as it
    stands; r, its top-1 after pi; g and l, how many examples pi sets right and wrong. It is refused where
    a <= r / 2, r is at least a quarter of the way from chance to 1, and g - l > 3 sqrt(g + l).
Source
    edgekd's own check. Kuhn 1955 for the assignment, McNemar 1947 for the paired comparison.
Shapes
    answers (N,) and labels (N,) of at most 2,000 labeled training examples, chosen by the seed.
Defaults
    done once for each teacher that is given as weights or as a file of answers, before anything is trained.
Traps
    Weights that edgekd wrote carry the names of their classes: others than the task's are refused by name.
    A teacher in another order does not fail: it teaches every class wrongly and validates at chance.
    Two classes exchanged out of many cost less than half of the answers: that is told and not refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from edgekd.errors import NetworkError
from edgekd.units import format_percent

PROBE = 2000
"""Training examples that are asked about."""
_ERRORS = 3.0
_SHOWN = 3

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Agreement:
    """How a teacher's answers agree with the labels."""

    top1: float
    """Share of right answers, over all examples."""
    reordered_top1: float
    """The same of the second half, after the permutation that suits the first half best."""
    warnings: tuple[str, ...] = field(default=())
    """What the user should know, a line each."""


def check_agreement(
    answers_N: Labels, labels_N: Labels, classes: tuple[str, ...], *, where: str
) -> Agreement:
    """Compare a teacher's answers with the labels.

    Args:
        answers_N: the class that the teacher names, (N,), from 0 to K - 1.
        labels_N: the class that it is, (N,).
        classes: names of the K classes.
        where: what the teacher is called in an error.

    Raises:
        NetworkError: in another order of its classes it would be right at least twice as often.
    """
    answer_of = _best_order(answers_N[::2], labels_N[::2], len(classes))
    answers, labels = answers_N[1::2], labels_N[1::2]
    before, after = answers == labels, answers == answer_of[labels]
    as_is, reordered = float(before.mean()), float(after.mean())
    gained, lost = int((after & ~before).sum()), int((before & ~after).sum())
    chance = float(np.bincount(labels_N, minlength=len(classes)).max() / len(labels_N))
    moved = [place for place in range(len(classes)) if answer_of[place] != place]
    warnings = []
    if gained - lost > _ERRORS * math.sqrt(gained + lost):
        what = (
            f"top-1 {format_percent(as_is, 1)} as they stand, {format_percent(reordered, 1)} after reordering"
        )
        look = _looks(moved, answer_of, classes)
        if as_is <= reordered / 2 and reordered >= chance + (1 - chance) / 4:
            raise NetworkError(
                f"its classes seem to be in another order: {what}; {look}",
                where=where,
                hint=f"bring its outputs into the task's order: {', '.join(classes[:8])}"
                + (", ..." if len(classes) > 8 else ""),
            )
        warnings.append(f"some classes of the teacher may be exchanged: {what}; {look}")
    top1 = float((answers_N == labels_N).mean())
    warnings += near_chance(top1, len(labels_N), chance)
    return Agreement(top1, reordered, tuple(warnings))


def near_chance(top1: float, count: int, chance: float) -> list[str]:
    """A line where a share of right answers is no clearer than what naming the commonest class gives."""
    if top1 > chance + _ERRORS * math.sqrt(chance * (1 - chance) / count):
        return []
    return [
        f"the teacher is right on {format_percent(top1, 1)} of {count} examples; "
        f"naming the commonest class every time gives {format_percent(chance, 1)}"
    ]


def _best_order(answers_N: Labels, labels_N: Labels, classes: int) -> Labels:
    """What the teacher most likely calls each class of the task."""
    table_KK = np.zeros((classes, classes))
    np.add.at(table_KK, (labels_N, answers_N), 1.0)
    # Less than any count: among equally good orders the task's own wins.
    table_KK += np.eye(classes) / (classes + 1)
    return np.asarray(linear_sum_assignment(table_KK, maximize=True)[1], dtype=np.int64)


def _looks(moved: list[int], answer_of: Labels, classes: tuple[str, ...]) -> str:
    pairs = [
        f"class {place} of the task ({classes[place]}) looks like its class {answer_of[place]}"
        for place in moved
    ]
    more = f" and {len(pairs) - _SHOWN} more" if len(pairs) > _SHOWN else ""
    return ", ".join(pairs[:_SHOWN]) + more
