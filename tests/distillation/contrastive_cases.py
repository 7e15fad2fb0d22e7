"""Rows of the terms that tell examples apart."""

from __future__ import annotations

import numpy as np

from tests.distillation.row import Case
from tests.distillation.steps import LABELS_N, OTHER_SHAPES, Array, N, NumpyStep, Parameters


def embedded(feature_BC: Array, state: Parameters, side: str) -> Array:
    weight_DC, bias_D = state[f"{side}.head.0.weight"], state[f"{side}.head.0.bias"]
    rows = [weight_DC @ feature_C + bias_D for feature_C in feature_BC]
    return np.array([row / np.sqrt((row**2).sum()) for row in rows])


def crd_side(
    anchors_BD: Array, bank_ND: Array, constant: float, step: NumpyStep, temperature: float
) -> float:
    labels_N = LABELS_N.numpy()
    powers: list[tuple[float, list[float]]] = []
    for anchor_D, own, label in zip(anchors_BD, step.indices, step.labels, strict=True):
        others = [number for number in range(N) if labels_N[number] != label]
        power = [float(np.exp(anchor_D @ bank_ND[number] / temperature)) for number in [own, *others]]
        powers.append((power[0], power[1:]))
    everything = [one for positive, negatives in powers for one in (positive, *negatives)]
    constant = constant or N * sum(everything) / len(everything)
    total = 0.0
    for positive, negatives in powers:
        share = len(negatives) / N
        total -= np.log(positive / constant / (positive / constant + share + 1e-7))
        total -= sum(np.log(share / (negative / constant + share + 1e-7)) for negative in negatives)
    return total / len(powers)


def crd_formula(step: NumpyStep, state: Parameters, temperature: float, tap: str = "pool") -> float:
    student_BC, teacher_BC = step.student.feature(tap), step.teacher.feature(tap)
    if student_BC.ndim == 4:
        student_BC, teacher_BC = student_BC.mean(axis=(2, 3)), teacher_BC.mean(axis=(2, 3))
    student_BD = embedded(student_BC, state, "student")
    teacher_BD = embedded(teacher_BC, state, "teacher")
    constants = {side: float(state[f"{side}.constant"]) for side in ("student", "teacher")}
    student = crd_side(student_BD, state["teacher.bank_ND"], constants["student"], step, temperature)
    return student + crd_side(teacher_BD, state["student.bank_ND"], constants["teacher"], step, temperature)


CONTRASTIVE_CASES = (
    Case(
        "crd first batch",
        {"kind": "crd"},
        lambda s, p: crd_formula(s, p, 0.07),
        per_example=False,  # the first batch sets the constants
    ),
    Case(
        "crd maps",
        {
            "kind": "crd",
            "dimension": 16,
            "temperature": 0.2,
            "student_tap": "stage1",
            "teacher_tap": "stage1",
        },
        lambda s, p: crd_formula(s, p, 0.2, "stage1"),
        source_shapes=OTHER_SHAPES,
        after_epoch=True,
    ),
)
