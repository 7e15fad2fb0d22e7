"""Rows of the term that weights another term's examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.distillation.logit_cases import kl, probabilities
from tests.distillation.row import Case
from tests.distillation.steps import OTHER_SHAPES, Array, NumpyStep, Parameters


def log_variances(feature_BC: Array, state: Parameters) -> Array:
    """Linear map, then batch norm with the statistics of the batch, within [-6, 6]."""
    weight_DC, bias_D = state["head.0.weight"], state["head.0.bias"]
    raw_BD = np.array([weight_DC @ feature_C + bias_D for feature_C in feature_BC])
    normal_BD = np.empty_like(raw_BD)
    for d in range(raw_BD.shape[1]):
        column_B = raw_BD[:, d]
        spread = np.sqrt(((column_B - column_B.mean()) ** 2).mean() + 1e-5)
        normal_BD[:, d] = (column_B - column_B.mean()) / spread
    scaled_BD = normal_BD * state["head.1.weight"] + state["head.1.bias"]
    return np.minimum(6, np.maximum(-6, scaled_BD))


def feature_distances(step: NumpyStep, state: Parameters) -> Array:
    student_BC, teacher_BD = step.student.feature("pool"), step.teacher.feature("pool")
    if "inner.projection.0.weight" in state:
        weight_DC, bias_D = state["inner.projection.0.weight"], state["inner.projection.0.bias"]
        student_BC = np.array([weight_DC @ row + bias_D for row in student_BC])
    return (teacher_BD - student_BC) ** 2


def kd_distances(step: NumpyStep, temperature: float, view: str = "weak") -> Array:
    pairs = zip(step.student.logits(view), step.teacher.logits(view), strict=True)
    values = [kl(probabilities(t / temperature), probabilities(s / temperature)) for s, t in pairs]
    return temperature**2 * np.array(values)[:, None]


def pad_formula(distances_BD: Array, log_variances_BD: Array) -> float:
    total = 0.0
    for distances_D, variances_D in zip(distances_BD, np.exp(log_variances_BD), strict=True):
        pairs = zip(distances_D, variances_D, strict=True)
        total += sum(d / variance + np.log(variance) for d, variance in pairs) / len(distances_D)
    return total / len(distances_BD)


def weighted(distances_BD: Array, weights_B: Array) -> float:
    weights_B = weights_B * len(weights_B) / weights_B.sum()
    return float((distances_BD.mean(axis=1) * weights_B).mean())


def discarding(distances_BD: Array, count: int) -> float:
    nearest = sorted(distances_BD.mean(axis=1))[: len(distances_BD) - count]
    return float(sum(nearest) / len(nearest))


def soft(distances_BD: Array, strength: float) -> float:
    distances_B = distances_BD.mean(axis=1)
    return weighted(distances_BD, np.exp(-strength * (distances_B - distances_B.min())))


def polynomial(distances_BD: Array, strength: float) -> float:
    part_B = distances_BD.mean(axis=1) / distances_BD.mean(axis=1).max()
    powers_B = (1 - part_B) ** strength if strength >= 0 else part_B ** abs(strength)
    return weighted(distances_BD, powers_B)


def pad(name: str, formula: Any, **keys: Any) -> Case:
    """A row after the warm-up, with a head, or weights that are no part of the gradient."""
    rest = {key: keys.pop(key) for key in ("at_teacher", "per_example", "source_shapes") if key in keys}
    section = {"kind": "pad", "warmup_epochs": 2, **keys}
    smooth = keys.get("weighting", "uncertainty") == "uncertainty"
    return Case(f"pad {name}", section, formula, **({"per_example": False, "smooth": smooth} | rest))


WEIGHTING_CASES = (
    pad(
        "features",
        lambda s, p: pad_formula(feature_distances(s, p), log_variances(s.student.feature("pool"), p)),
    ),
    pad(
        "features of other widths",
        lambda s, p: pad_formula(feature_distances(s, p), log_variances(s.student.feature("pool"), p)),
        source_shapes=OTHER_SHAPES,
    ),
    pad(
        "kd",
        lambda s, p: pad_formula(kd_distances(s, 2.0), log_variances(s.student.feature("pool"), p)),
        of={"kind": "kd", "temperature": 2.0},
    ),
    pad(
        "kd of the strong view, from a map",
        lambda s, p: pad_formula(
            kd_distances(s, 4.0, "strong"),
            log_variances(s.student.feature("stage1", "strong").mean(axis=(2, 3)), p),
        ),
        of={"kind": "kd", "view": "strong"},
        student_tap="stage1",
    ),
    pad(
        "kd in the warm-up",
        lambda s, _: float(kd_distances(s, 4.0).mean()),
        of={"kind": "kd"},
        warmup_epochs=3,
        at_teacher=0.0,
        per_example=True,
    ),
    pad(
        "features in the warm-up",
        lambda s, p: float(feature_distances(s, p).mean()),
        warmup_epochs=7,
        at_teacher=0.0,
        per_example=True,
    ),
    pad(
        "discard",
        lambda s, _: discarding(kd_distances(s, 4.0), 2),
        of={"kind": "kd"},
        weighting="discard",
        discard_fraction=0.4,
        at_teacher=0.0,
    ),
    pad(
        "softmax",
        lambda s, p: soft(feature_distances(s, p), 0.1),
        weighting="softmax",
        strength=0.1,
        at_teacher=0.0,
    ),
    pad(
        "polynomial",
        lambda s, _: polynomial(kd_distances(s, 4.0), 2.0),
        of={"kind": "kd"},
        weighting="polynomial",
        strength=2.0,
        at_teacher=0.0,
    ),
    pad(
        "polynomial for far ones",
        lambda s, _: polynomial(kd_distances(s, 4.0), -0.5),
        of={"kind": "kd"},
        weighting="polynomial",
        strength=-0.5,
        at_teacher=0.0,
    ),
    pad(
        "discard in the warm-up",
        lambda s, _: float(kd_distances(s, 4.0).mean()),
        of={"kind": "kd"},
        weighting="discard",
        warmup_epochs=3,
        at_teacher=0.0,
        per_example=True,
    ),
)
