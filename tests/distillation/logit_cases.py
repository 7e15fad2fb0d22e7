"""Rows of the terms that compare logits."""

from __future__ import annotations

import numpy as np

from tests.distillation.row import Case
from tests.distillation.steps import Array


def probabilities(logits_K: Array) -> Array:
    powers = np.exp(logits_K - logits_K.max())
    return powers / powers.sum()


def z_score(logits_K: Array) -> Array:
    return (logits_K - logits_K.mean()) / (logits_K.std(ddof=1) + 1e-7)


def kl(p: Array, q: Array) -> float:
    return float(sum(p_k * (np.log(p_k) - np.log(q_k)) for p_k, q_k in zip(p, q, strict=True)))


def kd_formula(student_BK: Array, teacher_BK: Array, temperature: float) -> float:
    pairs = zip(student_BK, teacher_BK, strict=True)
    total = sum(kl(probabilities(t / temperature), probabilities(s / temperature)) for s, t in pairs)
    return temperature**2 * total / len(student_BK)


def standardized_kd_formula(student_BK: Array, teacher_BK: Array, temperature: float) -> float:
    student_BK, teacher_BK = (np.array([z_score(row) for row in rows]) for rows in (student_BK, teacher_BK))
    return kd_formula(student_BK, teacher_BK, temperature)


def js_formula(student_BK: Array, teacher_BK: Array) -> float:
    total = 0.0
    for student_K, teacher_K in zip(student_BK, teacher_BK, strict=True):
        p, q = probabilities(teacher_K), probabilities(student_K)
        total += (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
    return total / len(student_BK)


LOGIT_CASES = (
    Case(
        "kd T=1",
        {"kind": "kd", "temperature": 1.0},
        lambda s, _: kd_formula(s.student.logits(), s.teacher.logits(), 1.0),
        at_teacher=0.0,
    ),
    Case(
        "kd T=4 strong",
        {"kind": "kd", "temperature": 4.0, "view": "strong"},
        lambda s, _: kd_formula(s.student.logits("strong"), s.teacher.logits("strong"), 4.0),
        at_teacher=0.0,
    ),
    Case(
        "kd standardized",
        {"kind": "kd", "temperature": 2.0, "standardize": True},
        lambda s, _: standardized_kd_formula(s.student.logits(), s.teacher.logits(), 2.0),
        at_teacher=0.0,
    ),
    Case(
        "js",
        {"kind": "js"},
        lambda s, _: js_formula(s.student.logits(), s.teacher.logits()),
        at_teacher=0.0,
    ),
)
