"""The arms that `edgekd quantize --arms` puts side by side: their names, and sets of them to ask for."""

from __future__ import annotations

from collections.abc import Iterable

from edgekd.documents.base import nearest
from edgekd.documents.recipe import Recipe
from edgekd.errors import UsageError
from edgekd.pipeline.quantize.names import CALIBRATORS, why_not

FP32, TUNED, STATIC = "fp32", "fp32-tuned", "quantize-static"
LEARNED, W4_PTQ, W4_QAD = "qad-lsq", "w4-ptq", "w4-qad"
MIXED, FP16 = "mixed", "fp16"
UNIFORM, POINTS = "quantized-distillation", "differentiable-quantization"

DESCRIPTIONS = {
    FP32: "the student in floating point",
    TUNED: "fine-tuned as long as qad, by the same objective, in floating point",
    "ptq-max": "calibrated: scales of the largest magnitudes",
    "ptq-percentile": "calibrated: scales that clip one value in ten thousand",
    "ptq-entropy": "calibrated: scales that keep the distribution",
    "ptq-mse": "calibrated: scales of the least squared error",
    "qat": "fine-tuned with fake quantization, from the labels",
    "qad-self": "fine-tuned with fake quantization, from the fp32 student",
    "qad-teacher": "fine-tuned with fake quantization, from the teacher",
    "qad": "fine-tuned with fake quantization, by the recipe's weights",
    STATIC: "onnxruntime's quantize_static: QDQ, U8S8, per channel",
    MIXED: "calibrated, the most sensitive layers in floating point",
    LEARNED: "qad with learned scales (LSQ)",
    W4_PTQ: "weights of 4 bits, calibrated",
    W4_QAD: "weights of 4 bits, qad with learned scales",
    UNIFORM: "quantized distillation: weights of 4 bits in buckets, computed in floating point",
    POINTS: "differentiable quantization: 16 learned points a tensor, computed in floating point",
    FP16: "half precision",
}
"""Every arm with what it is, in the order of the table."""

STANDARD = (
    *(FP32, TUNED),
    *(f"ptq-{calibrator}" for calibrator in CALIBRATORS),
    *("qat", "qad-self", "qad-teacher", "qad", STATIC),
)
SETS = {
    "standard": STANDARD,
    "schemes": (FP32, MIXED, LEARNED, W4_PTQ, W4_QAD, UNIFORM, POINTS, FP16),
    "all": tuple(DESCRIPTIONS),
}


def read_arms(asked: str) -> tuple[str, ...]:
    """The arms of a list of names and sets, in the order of the table; fp32 is always there.

    Raises:
        UsageError: with every name that is none.
    """
    names = [name.strip() for name in asked.split(",") if name.strip()]
    known = (*SETS, *DESCRIPTIONS)
    unknown = [name for name in names if name not in known]
    if unknown:
        problems = [f"there is no arm '{name}'{nearest(name, known)}" for name in unknown]
        raise UsageError("\n  ".join(problems), where="--which", hint=f"one of {', '.join(known)}")
    wanted = {FP32, *(arm for name in names for arm in SETS.get(name, (name,)))}
    return tuple(arm for arm in DESCRIPTIONS if arm in wanted)


def possible(arms: Iterable[str], recipe: Recipe) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The arms that a recipe can have, and a line for each that it cannot."""
    reasons = {arm: why_not("qad-teacher", recipe) for arm in arms if arm == "qad-teacher"}
    done = tuple(arm for arm in arms if reasons.get(arm) is None)
    return done, tuple(f"{arm}: {reason}" for arm, reason in reasons.items() if reason is not None)
