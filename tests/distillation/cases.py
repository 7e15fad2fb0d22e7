"""One row a term: how to build it, what it reads, and an independent statement of its formula in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgekd.distillation.kd import KD
from edgekd.distillation.labels import Labels
from edgekd.distillation.step import Term

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Case:
    """A term and what is known of it."""

    name: str
    term: Term
    formula: Callable[[Array, NDArray[np.int64], Mapping[str, Array]], float]
    at_teacher: float | None
    """Value, and minimum, where the student equals its teacher; None when no such value is known."""


def probabilities(logits_K: Array) -> Array:
    powers = np.exp(logits_K - logits_K.max())
    return powers / powers.sum()


def kd_formula(student_BK: Array, teacher_BK: Array, temperature: float) -> float:
    total = 0.0
    for student_K, teacher_K in zip(student_BK, teacher_BK, strict=True):
        p, q = probabilities(teacher_K / temperature), probabilities(student_K / temperature)
        for p_k, q_k in zip(p, q, strict=True):
            total += p_k * (np.log(p_k) - np.log(q_k))
    return temperature**2 * total / len(student_BK)


def labels_formula(student_BK: Array, labels_B: NDArray[np.int64], smoothing: float) -> float:
    total = 0.0
    for student_K, label in zip(student_BK, labels_B, strict=True):
        q = probabilities(student_K)
        target = np.full(len(q), smoothing / len(q))
        target[label] += 1 - smoothing
        total -= float((target * np.log(q)).sum())
    return total / len(student_BK)


CASES = (
    Case("kd T=1", KD(1.0), lambda s, y, t: kd_formula(s, t["teacher"], 1.0), at_teacher=0.0),
    Case("kd T=4", KD(4.0), lambda s, y, t: kd_formula(s, t["teacher"], 4.0), at_teacher=0.0),
    Case("kd self", KD(2.0, source="self"), lambda s, y, t: kd_formula(s, t["self"], 2.0), at_teacher=0.0),
    Case("labels", Labels(), lambda s, y, t: labels_formula(s, y, 0.0), at_teacher=None),
    Case("labels smoothed", Labels(0.1), lambda s, y, t: labels_formula(s, y, 0.1), at_teacher=None),
)
