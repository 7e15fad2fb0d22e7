"""Rows of the terms in which a network teaches itself."""

from __future__ import annotations

import numpy as np

from tests.distillation.logit_cases import kl, probabilities, z_score
from tests.distillation.row import Case
from tests.distillation.steps import Array, K, NumpyStep, Parameters


def pskd_formula(step: NumpyStep, before_NK: Array, alpha: float) -> float:
    share = alpha * step.epoch / step.epochs
    total = 0.0
    for logits_K, label, number in zip(step.student.logits(), step.labels, step.indices, strict=True):
        target_K = np.eye(K)[label]
        if before_NK[number].any():
            target_K = (1 - share) * target_K + share * before_NK[number]
        total -= float(sum(target_K * np.log(probabilities(logits_K))))
    return total / len(step.labels)


def exit_formula(exit_BK: Array, step: NumpyStep, temperature: float, *, standard: bool = False) -> float:
    total = 0.0
    for own_K, last_K, label in zip(exit_BK, step.student.logits(), step.labels, strict=True):
        p, q = (z_score(last_K), z_score(own_K)) if standard else (last_K, own_K)
        distance = kl(probabilities(p / temperature), probabilities(q / temperature))
        total += temperature**2 * distance - np.log(probabilities(own_K)[label])
    return total / len(exit_BK)


def linear(rows_BC: Array, state: Parameters, name: str) -> Array:
    return np.array([state[f"{name}.weight"] @ row + state[f"{name}.bias"] for row in rows_BC])


def exit_on_map(map_BCHW: Array, state: Parameters, name: str) -> Array:
    """Logits: 3x3 convolution with a border of zeros, batch norm over the batch, ReLU, mean, linear."""
    kernel_OCHW = state[f"{name}.0.weight"]
    count, _, height, width = map_BCHW.shape
    padded = np.pad(map_BCHW, ((0, 0), (0, 0), (1, 1), (1, 1)))
    found = np.zeros((count, len(kernel_OCHW), height, width))
    for example in range(count):
        for row in range(height):
            for column in range(width):
                window = padded[example, :, row : row + 3, column : column + 3]
                found[example, :, row, column] = (kernel_OCHW * window).sum(axis=(1, 2, 3))
    pooled = np.zeros((count, len(kernel_OCHW)))
    for channel in range(len(kernel_OCHW)):
        values = found[:, channel]
        normal = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        normal = normal * state[f"{name}.1.weight"][channel] + state[f"{name}.1.bias"][channel]
        pooled[:, channel] = np.maximum(normal, 0).mean(axis=(1, 2))
    return linear(pooled, state, f"{name}.5")


def two_exits(step: NumpyStep, state: Parameters) -> float:
    first_BK = exit_on_map(step.student.feature("stage2"), state, "exits.stage2")
    second_BK = linear(step.student.feature("pool"), state, "exits.pool.0")
    return 0.5 * exit_formula(first_BK, step, 2.0) + 1.5 * exit_formula(second_BK, step, 2.0)


OWN_CASES = (
    Case(
        "pskd before it remembers",
        {"kind": "pskd"},
        lambda s, p: pskd_formula(s, p["before_NK"], 0.8),
    ),
    Case(
        "pskd",
        {"kind": "pskd", "alpha": 0.6},
        lambda s, p: pskd_formula(s, p["before_NK"], 0.6),
        after_epoch=True,
    ),
    Case(
        "exits on all stages but the last",
        {"kind": "exits"},
        lambda s, p: exit_formula(exit_on_map(s.student.feature("stage1"), p, "exits.stage1"), s, 3.0),
        per_example=False,  # batch norm
        smooth=False,  # no gradient to the last logits
    ),
    Case(
        "exits standardized",
        {"kind": "exits", "student_taps": ("pool",), "standardize": True},
        lambda s, p: exit_formula(
            linear(s.student.feature("pool"), p, "exits.pool.0"), s, 3.0, standard=True
        ),
        smooth=False,  # no gradient to the last logits
    ),
    Case(
        "exits with weights, one on a vector",
        {
            "kind": "exits",
            "student_taps": ("stage2", "pool"),
            "exit_weights": (0.5, 1.5),
            "temperature": 2.0,
        },
        two_exits,
        per_example=False,
        smooth=False,
    ),
    Case(
        "exits on a vector",
        {"kind": "exits", "student_taps": ("pool",)},
        lambda s, p: exit_formula(linear(s.student.feature("pool"), p, "exits.pool.0"), s, 3.0),
        smooth=False,
    ),
)
