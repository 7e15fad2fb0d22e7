"""Rows of the terms that compare logits."""

from __future__ import annotations

import numpy as np

from tests.distillation.row import Case
from tests.distillation.steps import Array, Parameters


def probabilities(logits_K: Array) -> Array:
    powers = np.exp(logits_K - logits_K.max())
    return powers / powers.sum()


def z_score(logits_K: Array) -> Array:
    return (logits_K - logits_K.mean()) / (logits_K.std(ddof=1) + 1e-7)


def standardized(logits_BK: Array) -> Array:
    return np.array([z_score(row) for row in logits_BK])


def kl(p: Array, q: Array) -> float:
    return float(sum(p_k * (np.log(p_k) - np.log(q_k)) for p_k, q_k in zip(p, q, strict=True)))


def kd_formula(student_BK: Array, teacher_BK: Array, temperature: float) -> float:
    pairs = zip(student_BK, teacher_BK, strict=True)
    total = sum(kl(probabilities(t / temperature), probabilities(s / temperature)) for s, t in pairs)
    return temperature**2 * total / len(student_BK)


def standardized_kd_formula(student_BK: Array, teacher_BK: Array, temperature: float) -> float:
    return kd_formula(standardized(student_BK), standardized(teacher_BK), temperature)


def js_formula(student_BK: Array, teacher_BK: Array) -> float:
    total = 0.0
    for student_K, teacher_K in zip(student_BK, teacher_BK, strict=True):
        p, q = probabilities(teacher_K), probabilities(student_K)
        total += (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
    return total / len(student_BK)


def dist_formula(
    student_BK: Array, teacher_BK: Array, *, beta: float, gamma: float, temperature: float
) -> float:
    student_BK, teacher_BK = (
        np.array([probabilities(row / temperature) for row in rows]) for rows in (student_BK, teacher_BK)
    )
    rows = [np.corrcoef(s, t)[0, 1] for s, t in zip(student_BK, teacher_BK, strict=True)]
    columns = [np.corrcoef(s, t)[0, 1] for s, t in zip(student_BK.T, teacher_BK.T, strict=True)]
    return float(temperature**2 * (beta * (1 - np.mean(rows)) + gamma * (1 - np.mean(columns))))


def cross_entropy_formula(student_BK: Array, teacher_BK: Array, temperature: float = 1.0) -> float:
    total = 0.0
    for student_K, teacher_K in zip(student_BK, teacher_BK, strict=True):
        p, q = probabilities(teacher_K / temperature), probabilities(student_K / temperature)
        total -= sum(p_k * np.log(q_k) for p_k, q_k in zip(p, q, strict=True))
    return float(temperature**2 * total / len(student_BK))


def deception_formula(student_BK: Array, teacher_BK: Array, parameters: Parameters) -> float:
    """Mean binary cross-entropy of a discriminator with two hidden layers on log-probabilities."""

    def chance_of_teacher(logits_K: Array) -> float:
        x = np.log(probabilities(logits_K))
        for layer in (0, 2, 4):
            x = parameters[f"head.{layer}.weight"] @ x + parameters[f"head.{layer}.bias"]
            x = x if layer == 4 else np.maximum(x, 0)
        return float(1 / (1 + np.exp(-x[0])))

    students = [-np.log(1 - chance_of_teacher(row)) for row in student_BK]
    teachers = [-np.log(chance_of_teacher(row)) for row in teacher_BK]
    return float(np.mean([*students, *teachers]))


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
    Case(
        "dist",
        {"kind": "dist"},
        lambda s, _: dist_formula(
            s.student.logits(), s.teacher.logits(), beta=1.0, gamma=1.0, temperature=1.0
        ),
        at_teacher=0.0,
        per_example=False,
    ),
    Case(
        "dist T=4 strong",
        {"kind": "dist", "beta": 2.0, "gamma": 0.5, "temperature": 4.0, "view": "strong"},
        lambda s, _: dist_formula(
            s.student.logits("strong"), s.teacher.logits("strong"), beta=2.0, gamma=0.5, temperature=4.0
        ),
        at_teacher=0.0,
        per_example=False,
    ),
    Case(
        "dist standardized",
        {"kind": "dist", "temperature": 2.0, "standardize": True},
        lambda s, _: dist_formula(
            standardized(s.student.logits()),
            standardized(s.teacher.logits()),
            beta=1.0,
            gamma=1.0,
            temperature=2.0,
        ),
        at_teacher=0.0,
        per_example=False,
    ),
    Case(
        "meal",
        {"kind": "meal"},
        lambda s, _: cross_entropy_formula(s.student.logits(), s.teacher.logits()),
    ),
    Case(
        "meal standardized strong",
        {"kind": "meal", "temperature": 2.0, "standardize": True, "view": "strong"},
        lambda s, _: cross_entropy_formula(
            standardized(s.student.logits("strong")), standardized(s.teacher.logits("strong")), 2.0
        ),
    ),
    Case(
        "meal discriminator",
        {"kind": "meal", "discriminator": True},
        lambda s, p: (
            cross_entropy_formula(s.student.logits(), s.teacher.logits())
            + deception_formula(s.student.logits(), s.teacher.logits(), p)
        ),
        smooth=False,
    ),
)
