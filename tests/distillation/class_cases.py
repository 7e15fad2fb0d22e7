"""Rows of the terms that treat the class of the label apart."""

from __future__ import annotations

import numpy as np

from tests.distillation.logit_cases import kl, probabilities, standardized
from tests.distillation.row import Case
from tests.distillation.steps import LABELS_N, Array, NumpyStep, Parameters, make_survey


def without(values_K: Array, label: int) -> Array:
    """The other classes' values, scaled to a sum of 1."""
    others = np.array([value for k, value in enumerate(values_K) if k != label])
    return others / others.sum()


def dkd_formula(
    student_BK: Array, teacher_BK: Array, labels: Array, *, alpha: float, beta: float, temperature: float
) -> float:
    total = 0.0
    for student_K, teacher_K, y in zip(student_BK, teacher_BK, labels, strict=True):
        p, q = probabilities(teacher_K / temperature), probabilities(student_K / temperature)
        binary = kl(np.array([p[y], 1 - p[y]]), np.array([q[y], 1 - q[y]]))
        total += alpha * binary + beta * kl(without(p, y), without(q, y))
    return temperature**2 * total / len(labels)


def nkd_formula(
    student_BK: Array, teacher_BK: Array, labels: Array, *, gamma: float, temperature: float
) -> float:
    total = 0.0
    for student_K, teacher_K, y in zip(student_BK, teacher_BK, labels, strict=True):
        total -= probabilities(teacher_K)[y] * np.log(probabilities(student_K)[y])
        soft = (without(probabilities(z_K / temperature), y) for z_K in (teacher_K, student_K))
        total -= gamma * temperature**2 * sum(p * np.log(q) for p, q in zip(*soft, strict=True))
    return float(total / len(labels))


def zipf(scores: Array) -> Array:
    """1 / rank of each score, the largest first, scaled to a sum of 1."""
    ranks = [1 + sum(other > score for other in scores) for score in scores]
    shares = np.array([1 / rank for rank in ranks])
    return shares / shares.sum()


def uskd_formula(
    logits_BK: Array, weak_BK: Array, labels: Array, *, alpha: float, beta: float, mu: float
) -> float:
    sure = [probabilities(z_K)[y] ** 2 for z_K, y in zip(logits_BK, labels, strict=True)]
    target = others = weak = 0.0
    for logits_K, weak_K, y, square in zip(logits_BK, weak_BK, labels, sure, strict=True):
        own, aside = probabilities(logits_K), probabilities(weak_K)
        target -= (square + 1 - np.mean(sure)) * np.log(own[y])
        shares = zipf(without(own, y) + without(aside, y))
        others -= sum(z * np.log(q) for z, q in zip(shares, without(own, y), strict=True))
        smooth = [0.1 / len(own) + 0.9 * (k == y) for k in range(len(own))]
        weak -= sum(t * np.log(v) for t, v in zip(smooth, aside, strict=True))
    return float((alpha * target + beta * others + mu * weak) / len(labels))


def weak_logits(step: NumpyStep, parameters: Parameters, tap: str, view: str = "weak") -> Array:
    mean_BC = step.student.feature(tap, view).mean(axis=(2, 3))
    return mean_BC @ parameters["head.0.weight"].T + parameters["head.0.bias"]


def nd_formula(student_BC: Array, teacher_BC: Array, labels: Array, tap: str) -> float:
    features = make_survey().features("teacher", tap).double().numpy()
    features = features.reshape(*features.shape[:2], -1).mean(axis=2)
    total = 0.0
    for student_C, teacher_C, y in zip(student_BC, teacher_BC, labels, strict=True):
        center = np.mean([f for f, label in zip(features, LABELS_N, strict=True) if label == y], axis=0)
        norm = max(np.sqrt(student_C @ student_C), np.sqrt(teacher_C @ teacher_C))
        total += 1 - student_C @ center / np.sqrt(center @ center) / norm
    return float(total / len(labels))


def projected(feature_BC: Array, parameters: Parameters) -> Array:
    """Batch norm by the batch's own moments, then the linear map."""
    mean, variance = feature_BC.mean(axis=0), feature_BC.var(axis=0)
    normed = (feature_BC - mean) / np.sqrt(variance + 1e-5)
    normed = normed * parameters["head.0.weight"] + parameters["head.0.bias"]
    return normed @ parameters["head.2.weight"].T + parameters["head.2.bias"]


CLASS_CASES = (
    Case(
        "dkd",
        {"kind": "dkd"},
        lambda s, _: dkd_formula(
            s.student.logits(), s.teacher.logits(), s.labels, alpha=1.0, beta=8.0, temperature=4.0
        ),
        at_teacher=0.0,
    ),
    Case(
        "dkd T=1 strong",
        {"kind": "dkd", "alpha": 0.5, "beta": 2.0, "temperature": 1.0, "view": "strong"},
        lambda s, _: dkd_formula(
            s.student.logits("strong"),
            s.teacher.logits("strong"),
            s.labels,
            alpha=0.5,
            beta=2.0,
            temperature=1.0,
        ),
        at_teacher=0.0,
    ),
    Case(
        "dkd standardized",
        {"kind": "dkd", "alpha": 9.0, "beta": 72.0, "temperature": 2.0, "standardize": True},
        lambda s, _: dkd_formula(
            standardized(s.student.logits()),
            standardized(s.teacher.logits()),
            s.labels,
            alpha=9.0,
            beta=72.0,
            temperature=2.0,
        ),
        at_teacher=0.0,
    ),
    Case(
        "nkd",
        {"kind": "nkd"},
        lambda s, _: nkd_formula(
            s.student.logits(), s.teacher.logits(), s.labels, gamma=1.5, temperature=1.0
        ),
    ),
    Case(
        "nkd T=3 strong",
        {"kind": "nkd", "gamma": 3.5, "temperature": 3.0, "view": "strong"},
        lambda s, _: nkd_formula(
            s.student.logits("strong"), s.teacher.logits("strong"), s.labels, gamma=3.5, temperature=3.0
        ),
    ),
    Case(
        "nkd standardized",
        {"kind": "nkd", "temperature": 2.0, "standardize": True},
        lambda s, _: nkd_formula(
            standardized(s.student.logits()),
            standardized(s.teacher.logits()),
            s.labels,
            gamma=1.5,
            temperature=2.0,
        ),
    ),
    Case(
        "uskd",
        {"kind": "uskd"},
        lambda s, p: uskd_formula(
            s.student.logits(), weak_logits(s, p, "stage1"), s.labels, alpha=1.0, beta=0.1, mu=0.005
        ),
        per_example=False,
        smooth=False,
    ),
    Case(
        "uskd stem strong",
        {"kind": "uskd", "student_tap": "stem", "view": "strong", "alpha": 0.1, "beta": 0.4, "mu": 0.3},
        lambda s, p: uskd_formula(
            s.student.logits("strong"),
            weak_logits(s, p, "stem", "strong"),
            s.labels,
            alpha=0.1,
            beta=0.4,
            mu=0.3,
        ),
        per_example=False,
        smooth=False,
    ),
    Case(
        "nd",
        {"kind": "nd"},
        lambda s, _: nd_formula(s.student.feature("pool"), s.teacher.feature("pool"), s.labels, "pool"),
        tolerance=1e-6,
    ),
    Case(
        "nd strong, projected, of maps",
        {"kind": "nd", "view": "strong", "student_tap": "pool", "teacher_tap": "stage1", "dropout": 0.0},
        lambda s, p: nd_formula(
            projected(s.student.feature("pool", "strong"), p),
            s.teacher.feature("stage1", "strong").mean(axis=(2, 3)),
            s.labels,
            "stage1",
        ),
        per_example=False,
        tolerance=1e-6,
    ),
)
