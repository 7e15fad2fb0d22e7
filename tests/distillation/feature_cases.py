"""Rows of the terms that compare features: maps, vectors and the relations among them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from tests.distillation.logit_cases import kl, probabilities
from tests.distillation.row import Case
from tests.distillation.steps import OTHER_SHAPES, Array, NumpyStep, Parameters


def averaged(x_BCX: Array, sizes: Sequence[int]) -> Array:
    """Mean over the part of a map that falls to each position of a smaller one."""
    for axis, wanted in enumerate(sizes, start=2):
        size = x_BCX.shape[axis]
        parts = []
        for place in range(wanted):
            first, last = math.floor(place * size / wanted), math.ceil((place + 1) * size / wanted)
            parts.append(np.take(x_BCX, range(first, last), axis).mean(axis=axis, keepdims=True))
        x_BCX = np.concatenate(parts, axis=axis)
    return x_BCX


def nearest(x_BCHW: Array, sizes: Sequence[int]) -> Array:
    (height, width), (rows, columns) = x_BCHW.shape[2:], sizes
    result = np.empty((*x_BCHW.shape[:2], rows, columns))
    for i, j in itertools.product(range(rows), range(columns)):
        result[:, :, i, j] = x_BCHW[:, :, i * height // rows, j * width // columns]
    return result


def to_smaller(student_BCHW: Array, teacher_BCHW: Array) -> tuple[Array, Array]:
    sizes = [min(pair) for pair in zip(student_BCHW.shape[2:], teacher_BCHW.shape[2:], strict=True)]
    return averaged(student_BCHW, sizes), averaged(teacher_BCHW, sizes)


def convolved(x_BCHW: Array, parameters: Parameters, name: str) -> Array:
    """A convolution that keeps the size, an output position at a time."""
    weight_OCKK = parameters[f"{name}.weight"]
    reach = weight_OCKK.shape[2] // 2
    padded = np.pad(x_BCHW, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    examples, _, height, width = x_BCHW.shape
    result = np.zeros((examples, len(weight_OCKK), height, width))
    for b, o, i, j in itertools.product(*[range(size) for size in result.shape]):
        patch = padded[b, :, i : i + 2 * reach + 1, j : j + 2 * reach + 1]
        result[b, o, i, j] = (patch * weight_OCKK[o]).sum() + parameters.get(f"{name}.bias", np.zeros(99))[o]
    return result


def normed(x_BCX: Array, parameters: Parameters, name: str) -> Array:
    """Batch norm as in training."""
    result = np.empty_like(x_BCX)
    for c in range(x_BCX.shape[1]):
        values = x_BCX[:, c]
        relative = (values - values.mean()) / np.sqrt(values.var() + 1e-5)
        result[:, c] = relative * parameters[f"{name}.weight"][c] + parameters[f"{name}.bias"][c]
    return result


def fitnet_formula(student_BCX: Array, teacher_BCX: Array) -> float:
    return float(((student_BCX - teacher_BCX) ** 2).sum() / teacher_BCX.size)


def regressed(step: NumpyStep, parameters: Parameters) -> float:
    student, teacher = to_smaller(step.student.feature("stage2"), step.teacher.feature("stage2"))
    student = normed(convolved(student, parameters, "regressor.0"), parameters, "regressor.1")
    return fitnet_formula(student, teacher)


def regressed_vectors(step: NumpyStep, parameters: Parameters) -> float:
    student = step.student.feature("pool") @ parameters["regressor.0.weight"].T
    return fitnet_formula(normed(student, parameters, "regressor.1"), step.teacher.feature("pool"))


def regressed_tokens(step: NumpyStep, parameters: Parameters) -> float:
    student_BTC = step.student.feature("qkv") @ parameters["regressor.0.weight"][:, :, 0].T
    student_BCT = normed(student_BTC.swapaxes(1, 2), parameters, "regressor.1")
    return fitnet_formula(student_BCT, step.teacher.feature("qkv").swapaxes(1, 2))


def at_formula(student_BCHW: Array, teacher_BCHW: Array) -> float:
    total = 0.0
    for student, teacher in zip(*to_smaller(student_BCHW, teacher_BCHW), strict=True):
        one, other = ((x_CHW**2).mean(axis=0).flatten() for x_CHW in (student, teacher))
        one, other = one / np.linalg.norm(one), other / np.linalg.norm(other)
        total += ((one - other) ** 2).mean()
    return total / len(student_BCHW)


def at_of(step: NumpyStep, *pairs: tuple[str, str]) -> float:
    return sum(at_formula(step.student.feature(one), step.teacher.feature(other)) for one, other in pairs)


def sp_formula(student_B: Array, teacher_B: Array) -> float:
    count = len(student_B)
    rows = []
    for feature_B in (student_B, teacher_B):
        gram = np.array([[np.vdot(one, other) for other in feature_B] for one in feature_B])
        rows.append([row / np.linalg.norm(row) for row in gram])
    return float(sum(((one - other) ** 2).sum() for one, other in zip(*rows, strict=True)) / count**2)


def huber(x: float) -> float:
    return x**2 / 2 if abs(x) < 1 else abs(x) - 0.5


def rkd_formula(student_BC: Array, teacher_BC: Array, distance_weight: float, angle_weight: float) -> float:
    count = len(student_BC)

    def distances(rows: Array) -> dict[tuple[int, int], float]:
        found = {(i, j): float(np.linalg.norm(rows[i] - rows[j])) for i in range(count) for j in range(count)}
        mean = sum(found.values()) / (count * (count - 1))
        return {pair: distance / mean for pair, distance in found.items()}

    def cosine(rows: Array, i: int, j: int, k: int) -> float:
        if j in (i, k):
            return 0.0
        one, other = rows[i] - rows[j], rows[k] - rows[j]
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    of_student, of_teacher = distances(student_BC), distances(teacher_BC)
    apart = sum(huber(of_student[pair] - of_teacher[pair]) for pair in of_student) / count**2
    triples = itertools.product(range(count), repeat=3)
    turned = sum(huber(cosine(student_BC, *ijk) - cosine(teacher_BC, *ijk)) for ijk in triples) / count**3
    return distance_weight * apart + angle_weight * turned


def pkt_formula(student_BC: Array, teacher_BC: Array) -> float:
    def likely(rows: Array) -> Array:
        units = [row / np.linalg.norm(row) for row in rows]
        found = np.array([[(one @ other + 1) / 2 for other in units] for one in units])
        return found / found.sum(axis=1, keepdims=True)

    teacher, student = likely(teacher_BC), likely(student_BC)
    return sum(kl(p, q) for p, q in zip(teacher, student, strict=True)) / len(student_BC) ** 2


def minilm_formula(student_BTC: Array, teacher_BTC: Array, heads: int) -> float:
    total = 0.0
    for student_TC, teacher_TC in zip(student_BTC, teacher_BTC, strict=True):
        for head in range(heads):
            for one, other in ((0, 1), (2, 2)):  # queries with keys, values with values
                p, q = (relation(x, heads, head, one, other) for x in (teacher_TC, student_TC))
                total += sum(kl(*rows) for rows in zip(p, q, strict=True)) / len(p)
    return total / heads / len(student_BTC)


def relation(projected_TC: Array, heads: int, head: int, one: int, other: int) -> list[Array]:
    width = projected_TC.shape[1] // (3 * heads)
    starts = ((which * heads + head) * width for which in (one, other))
    left, right = (projected_TC[:, start : start + width] for start in starts)
    return [probabilities(row @ right.T / np.sqrt(width)) for row in left]


def hcl_formula(student_BCHW: Array, teacher_BCHW: Array) -> float:
    shorter = min(teacher_BCHW.shape[2:])
    levels = [level for level in (4, 2, 1) if level < shorter]
    weights = [1.0, *(0.5 ** (number + 1) for number in range(len(levels)))]
    values = [((student_BCHW - teacher_BCHW) ** 2).mean()]
    for level in levels:
        pair = (averaged(x, (level, level)) for x in (student_BCHW, teacher_BCHW))
        values.append(np.square(np.subtract(*pair)).mean())
    return float(sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights))


def review_formula(step: NumpyStep, parameters: Parameters, taps: Sequence[str]) -> float:
    total, deeper = 0.0, None
    for number in reversed(range(len(taps))):
        layer = f"fusions.{number}"
        x, t = (one.feature(taps[number]) for one in (step.student, step.teacher))
        x, t = (one[:, :, None, None] if one.ndim == 2 else one for one in (x, t))
        fused = normed(convolved(x, parameters, f"{layer}.narrow.0"), parameters, f"{layer}.narrow.1")
        if deeper is not None:
            deeper = nearest(deeper, x.shape[2:])
            both = np.concatenate([fused, deeper], axis=1)
            gates = 1 / (1 + np.exp(-convolved(both, parameters, f"{layer}.gate.0")))
            fused = gates[:, :1] * fused + gates[:, 1:] * deeper
        deeper = fused = nearest(fused, t.shape[2:])
        answer = normed(convolved(fused, parameters, f"{layer}.answer.0"), parameters, f"{layer}.answer.1")
        total += hcl_formula(answer, t)
    return total


Compare = Callable[[Array, Array], float]


def both(tap: str, compare: Compare) -> Callable[[NumpyStep, Parameters], float]:
    """The formula on the features of both at one tap."""
    return lambda step, _: compare(step.student.feature(tap), step.teacher.feature(tap))


FEATURE_CASES = (
    Case("fitnet", {"kind": "fitnet"}, both("stage2", fitnet_formula), at_teacher=0.0),
    Case(
        "fitnet of unlike maps", {"kind": "fitnet"}, regressed, per_example=False, source_shapes=OTHER_SHAPES
    ),
    Case(
        "fitnet of unlike sizes alone",
        {"kind": "fitnet", "student_tap": "stage1", "teacher_tap": "stage1"},
        lambda s, _: fitnet_formula(*to_smaller(s.student.feature("stage1"), s.teacher.feature("stage1"))),
        source_shapes={**OTHER_SHAPES, "stage1": (4, 6, 9)},
    ),
    Case(
        "fitnet of vectors",
        {"kind": "fitnet", "student_tap": "pool", "teacher_tap": "pool"},
        regressed_vectors,
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "fitnet of tokens",
        {"kind": "fitnet", "student_tap": "qkv", "teacher_tap": "qkv"},
        regressed_tokens,
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "at",
        {"kind": "at"},
        lambda s, _: at_of(s, ("stage1", "stage1"), ("stage2", "stage2")),
        at_teacher=0.0,
    ),
    Case(
        "at of unlike maps",
        {"kind": "at", "student_taps": ("stem", "stage1"), "teacher_taps": ("stage1", "stage2")},
        lambda s, _: at_of(s, ("stem", "stage1"), ("stage1", "stage2")),
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "at of tokens",
        {"kind": "at", "student_taps": ("qkv",), "teacher_taps": ("qkv",)},
        lambda s, _: at_formula(
            *[one.feature("qkv").swapaxes(1, 2)[..., None] for one in (s.student, s.teacher)]
        ),
        at_teacher=0.0,
    ),
    Case("sp", {"kind": "sp"}, both("stage2", sp_formula), at_teacher=0.0, per_example=False),
    Case(
        "sp of two unlike pairs",
        {"kind": "sp", "student_taps": ("stage1", "pool"), "teacher_taps": ("stage2", "pool")},
        lambda s, _: (
            sp_formula(s.student.feature("stage1"), s.teacher.feature("stage2"))
            + sp_formula(s.student.feature("pool"), s.teacher.feature("pool"))
        ),
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "rkd",
        {"kind": "rkd"},
        both("pool", lambda s, t: rkd_formula(s, t, 25.0, 50.0)),
        at_teacher=0.0,
        per_example=False,
    ),
    Case(
        "rkd of unlike maps",
        {
            "kind": "rkd",
            "student_tap": "stage1",
            "teacher_tap": "stage1",
            "distance_weight": 3.0,
            "angle_weight": 2.0,
        },
        both("stage1", lambda s, t: rkd_formula(s.mean(axis=(2, 3)), t.mean(axis=(2, 3)), 3.0, 2.0)),
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "rkd without angles",
        {"kind": "rkd", "distance_weight": 1.0, "angle_weight": 0.0},
        both("pool", lambda s, t: rkd_formula(s, t, 1.0, 0.0)),
        at_teacher=0.0,
        per_example=False,
    ),
    Case("pkt", {"kind": "pkt"}, both("pool", pkt_formula), at_teacher=0.0, per_example=False),
    Case(
        "pkt of unlike maps",
        {"kind": "pkt", "student_tap": "stem", "teacher_tap": "stage1"},
        lambda s, _: pkt_formula(
            s.student.feature("stem").mean(axis=(2, 3)), s.teacher.feature("stage1").mean(axis=(2, 3))
        ),
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "reviewkd",
        {"kind": "reviewkd"},
        lambda s, p: review_formula(s, p, ("stage1", "stage2", "pool")),
        per_example=False,
    ),
    Case(
        "reviewkd of unlike maps",
        {
            "kind": "reviewkd",
            "student_taps": ("stem", "stage1", "stage2"),
            "teacher_taps": ("stem", "stage1", "stage2"),
        },
        lambda s, p: review_formula(s, p, ("stem", "stage1", "stage2")),
        per_example=False,
        source_shapes=OTHER_SHAPES,
    ),
    Case(
        "minilm",
        {"kind": "minilm", "student_heads": 2, "teacher_heads": 2},
        both("qkv", lambda s, t: minilm_formula(s, t, 2)),
        at_teacher=0.0,
    ),
    Case(
        "minilm of unlike widths",
        {"kind": "minilm", "student_heads": 4, "teacher_heads": 4},
        both("qkv", lambda s, t: minilm_formula(s, t, 4)),
        source_shapes=OTHER_SHAPES,
    ),
)
