"""Rows of the terms that learn from four transformations of an example."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.distillation.logit_cases import kd_formula, kl, probabilities, standardized_kd_formula, z_score
from tests.distillation.row import Case
from tests.distillation.steps import OTHER_SHAPES, Array, NumpyStep, Parameters, Seen

TURNS = ("weak", "pretext1", "pretext2", "pretext3")


def linear(x_RD: Array, parameters: Parameters, name: str) -> Array:
    return x_RD @ parameters[f"{name}.weight"].T + parameters[f"{name}.bias"]


def ranked(scores_RC: Array, true_R: list[int]) -> list[int]:
    """How many of the scores of each row are strictly higher than that of its true entry."""
    return [sum(score > row[true] for score in row) for row, true in zip(scores_RC, true_R, strict=True)]


def kept(ranks: list[int], ratio: float) -> list[int]:
    """The rows to learn from: all of rank 0, and of the others the least wrong."""
    correct = [row for row, rank in enumerate(ranks) if rank == 0]
    wrong = [row for row, rank in enumerate(ranks) if rank > 0]
    wrong = sorted(wrong, key=lambda row: (ranks[row], row))
    return correct + wrong[: int(ratio * len(wrong))]


def selected_kl(
    student_RC: Array, teacher_RC: Array, true_R: list[int], t: float, ratio: float, *, standard: bool = False
) -> float:
    rows = kept(ranked(teacher_RC, true_R), ratio)
    formula = standardized_kd_formula if standard else kd_formula
    return formula(student_RC[rows], teacher_RC[rows], t)


def cosines(answer: Seen, parameters: Parameters, head: str) -> Array:
    def embedded(view: str) -> Array:
        hidden_BD = np.maximum(linear(answer.feature("pool", view), parameters, f"{head}.0"), 0)
        return linear(hidden_BD, parameters, f"{head}.2")

    plain_BD = embedded("weak")
    turned_RD = np.concatenate([embedded(view) for view in TURNS[1:]])
    return np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in plain_BD] for a in turned_RD])


def sskd_formula(
    step: NumpyStep,
    parameters: Parameters,
    *,
    weights: tuple[float, float] = (2.7, 10.0),
    temperatures: tuple[float, float] = (4.0, 0.5),
    ratios: tuple[float, float] = (1.0, 0.75),
    standard: bool = False,
) -> float:
    logits = [
        np.concatenate([answer.logits(view) for view in TURNS[1:]]) for answer in (step.student, step.teacher)
    ]
    labels = [int(label) for _ in TURNS[1:] for label in step.labels]
    value = 0.0
    if weights[0]:
        value = weights[0] * selected_kl(*logits, labels, temperatures[0], ratios[0], standard=standard)
    if weights[1]:
        student_RB = cosines(step.student, parameters, "student_head")
        teacher_RB = cosines(step.teacher, parameters, "teacher_head.head")
        sources = [source for _ in TURNS[1:] for source in range(len(step.labels))]
        value += weights[1] * selected_kl(student_RB, teacher_RB, sources, temperatures[1], ratios[1])
    return value


def stacked(answer: Seen, tap: str) -> Array:
    return np.concatenate([answer.feature(tap, view) for view in TURNS])


def convolved(x_RCHW: Array, weight_OChw: Array, strides: tuple[int, int]) -> Array:
    """3x3 convolution with a border of one zero."""
    padded = np.pad(x_RCHW, [(0, 0), (0, 0), (1, 1), (1, 1)])
    height, width = ((size - 1) // stride + 1 for size, stride in zip(x_RCHW.shape[2:], strides, strict=True))
    out = np.zeros((len(x_RCHW), len(weight_OChw), height, width))
    for i, j in np.ndindex(height, width):
        patch = padded[:, :, i * strides[0] : i * strides[0] + 3, j * strides[1] : j * strides[1] + 3]
        out[:, :, i, j] = np.einsum("rchw,ochw->ro", patch, weight_OChw)
    return out


def normalized(x_RCHW: Array, parameters: Parameters, name: str, *, trained: bool) -> Array:
    """Batch norm by the batch, or by what was gathered before."""
    mean_C, variance_C = x_RCHW.mean((0, 2, 3)), x_RCHW.var((0, 2, 3))
    if trained:
        mean_C, variance_C = parameters[f"{name}.running_mean"], parameters[f"{name}.running_var"]
    scale_C = parameters[f"{name}.weight"] / np.sqrt(variance_C + 1e-5)
    by_channel = (slice(None), None, None)
    return (x_RCHW - mean_C[by_channel]) * scale_C[by_channel] + parameters[f"{name}.bias"][by_channel]


Strides = tuple[tuple[int, int], ...]


def auxiliary(
    features: list[Array], parameters: Parameters, head: str, strides: list[Strides], *, trained: bool = False
) -> list[tuple[Array, Array]]:
    """Feature (R, D) and joint logits (R, J) of the classifier of each stage."""
    found = []
    for stage, x_RCHW in enumerate(features):
        for layer, stride in enumerate(strides[stage]):
            body = f"{head}.bodies.{stage}"
            x_RCHW = convolved(x_RCHW, parameters[f"{body}.{3 * layer}.weight"], stride)
            x_RCHW = normalized(x_RCHW, parameters, f"{body}.{3 * layer + 1}", trained=trained)
            x_RCHW = np.maximum(x_RCHW, 0)
        e_RD = x_RCHW.mean((2, 3))
        found.append((e_RD, linear(e_RD, parameters, f"{head}.classifiers.{stage}.0")))
    return found


STRIDES: list[Strides] = [((2, 2), (1, 1)), ((1, 1),)]
"""Of the classifiers at stage1 (8x8) and stage2 (4x4)."""
OTHER_STRIDES: list[Strides] = [((3, 1), (1, 1)), ((1, 1),)]
"""The same where stage1 is 6x3 and stage2 2x6."""


def hsakd_formula(
    step: NumpyStep,
    parameters: Parameters,
    *,
    temperature: float = 3.0,
    weights: tuple[float, float] = (1.0, 1.0),
    teacher_strides: list[Strides] = STRIDES,
    formula: Callable[[Array, Array, float], float] = kd_formula,
) -> float:
    student, teacher = ([stacked(one, tap) for tap in TAPS] for one in (step.student, step.teacher))
    own = auxiliary(student, parameters, "student_head", STRIDES) if weights[0] else []
    others = auxiliary(teacher, parameters, "teacher_head.head", teacher_strides, trained=True) if own else []
    value = sum(formula(a, b, temperature) for (_, a), (_, b) in zip(own, others, strict=True))
    networks = (np.concatenate([one.logits(view) for view in TURNS]) for one in (step.student, step.teacher))
    return weights[0] * value + weights[1] * formula(*networks, temperature)


TAPS = ("stage1", "stage2")


def joint_formula(logits_RJ: Array, labels: Array) -> float:
    """Cross-entropy with class and transformation."""
    total = 0.0
    for row, logits_J in enumerate(logits_RJ):
        turn, example = divmod(row, len(labels))
        total -= np.log(probabilities(logits_J)[4 * labels[example] + turn])
    return total / len(logits_RJ)


def lsskd_formula(
    step: NumpyStep,
    parameters: Parameters,
    *,
    temperature: float = 3.0,
    weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
    formula: Callable[[Array, Array, float], float] = kd_formula,
) -> float:
    features = [stacked(step.student, tap) for tap in TAPS]
    (e_first, z_first), (e_last, z_last) = auxiliary(features, parameters, "head", STRIDES)
    joint = joint_formula(z_first, step.labels) + joint_formula(z_last, step.labels)
    transfer = formula(z_first, z_last, temperature)
    alignment = float(((e_first - e_last) ** 2).mean())
    return weights[0] * joint + weights[1] * transfer + weights[2] * alignment


def sla_formula(
    step: NumpyStep,
    parameters: Parameters,
    *,
    temperature: float = 1.0,
    weights: tuple[float, float] = (1.0, 1.0),
    standard: bool = False,
) -> float:
    joint_RJ = linear(stacked(step.student, "pool"), parameters, "head.0")
    size, classes = step.student.logits().shape
    total = 0.0
    for example, logits_K in enumerate(step.student.logits()):
        aggregate_K = np.array(
            [
                np.mean([joint_RJ[turn * size + example, 4 * k + turn] for turn in range(4)])
                for k in range(classes)
            ]
        )
        if standard:
            aggregate_K, logits_K = z_score(aggregate_K), z_score(logits_K)
        p, q = probabilities(aggregate_K / temperature), probabilities(logits_K / temperature)
        total += temperature**2 * kl(p, q)
    return weights[0] * joint_formula(joint_RJ, step.labels) + weights[1] * total / size


PRETEXT_CASES = (
    Case("sskd", {"kind": "sskd"}, sskd_formula, per_example=False),
    Case(
        "sskd standardized",
        {"kind": "sskd", "standardize": True},
        lambda s, p: sskd_formula(s, p, standard=True),
        per_example=False,
    ),
    Case(
        "hsakd standardized",
        {"kind": "hsakd", "standardize": True, "temperature": 2.0},
        lambda s, p: hsakd_formula(s, p, temperature=2.0, formula=standardized_kd_formula),
        per_example=False,
    ),
    Case(
        "lsskd standardized",
        {"kind": "lsskd", "standardize": True, "temperature": 2.0},
        lambda s, p: lsskd_formula(s, p, temperature=2.0, formula=standardized_kd_formula),
        per_example=False,
        smooth=False,  # no gradient to the deepest stage
    ),
    Case(
        "sla standardized",
        {"kind": "sla", "standardize": True},
        lambda s, p: sla_formula(s, p, standard=True),
        smooth=False,  # no gradient to the aggregated prediction
    ),
    Case(
        "sskd few transformed",
        {"kind": "sskd", "transformed_ratio": 0.4, "transformed_temperature": 2.0, "similarity_weight": 0.0},
        lambda s, p: sskd_formula(s, p, weights=(2.7, 0.0), temperatures=(2.0, 0.5), ratios=(0.4, 0.75)),
        at_teacher=0.0,
        per_example=False,
    ),
    Case(
        "sskd similarities",
        {"kind": "sskd", "transformed_weight": 0.0, "similarity_ratio": 0.3, "similarity_temperature": 1.0},
        lambda s, p: sskd_formula(s, p, weights=(0.0, 10.0), temperatures=(4.0, 1.0), ratios=(1.0, 0.3)),
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case("hsakd", {"kind": "hsakd"}, hsakd_formula, per_example=False),
    Case(
        "hsakd unlike networks",
        {"kind": "hsakd", "temperature": 2.0, "auxiliary_weight": 0.5, "logits_weight": 3.0},
        lambda s, p: hsakd_formula(s, p, temperature=2.0, weights=(0.5, 3.0), teacher_strides=OTHER_STRIDES),
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "hsakd logits",
        {"kind": "hsakd", "auxiliary_weight": 0.0},
        lambda s, p: hsakd_formula(s, p, weights=(0.0, 1.0)),
        at_teacher=0.0,
    ),
    Case("lsskd", {"kind": "lsskd"}, lsskd_formula, per_example=False, smooth=False),
    Case(
        "lsskd weights",
        {
            "kind": "lsskd",
            "temperature": 1.5,
            "joint_weight": 0.3,
            "transfer_weight": 2.0,
            "alignment_weight": 5.0,
        },
        lambda s, p: lsskd_formula(s, p, temperature=1.5, weights=(0.3, 2.0, 5.0)),
        per_example=False,
        smooth=False,
    ),
    Case(
        "lsskd joint",
        {"kind": "lsskd", "transfer_weight": 0.0, "alignment_weight": 0.0},
        lambda s, p: lsskd_formula(s, p, weights=(1.0, 0.0, 0.0)),
        per_example=False,
    ),
    Case("sla", {"kind": "sla"}, sla_formula, smooth=False),
    Case(
        "sla T=3",
        {"kind": "sla", "temperature": 3.0, "joint_weight": 4.0, "aggregate_weight": 0.5},
        lambda s, p: sla_formula(s, p, temperature=3.0, weights=(4.0, 0.5)),
        smooth=False,
    ),
    Case(
        "sla joint",
        {"kind": "sla", "aggregate_weight": 0.0},
        lambda s, p: sla_formula(s, p, weights=(1.0, 0.0)),
    ),
)
