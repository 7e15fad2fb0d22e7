"""The arms of quantization: what each is called in reports, and which fine-tuning it stands for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgekd.documents.quantization import Calibrator, QuantizedArm, QuantizedTraining
from edgekd.documents.recipe import Recipe
from edgekd.documents.scheme import Scheme

CALIBRATORS: tuple[Calibrator, ...] = ("max", "percentile", "entropy", "mse")

_CALLED: dict[QuantizedArm, str] = {
    "ptq": "PTQ",
    "mixed": "mixed",
    "qat": "QAT",
    "qad-self": "QAD from itself",
    "qad-teacher": "QAD from the teacher",
    "qad": "QAD",
}
_WITHOUT: dict[QuantizedArm, tuple[str, ...]] = {
    "qat": ("self_weight", "teacher_weight"),
    "qad-self": ("teacher_weight",),
    "qad-teacher": ("self_weight",),
    "qad": (),
}


FINE_TUNED = tuple(_WITHOUT)
"""The arms that train, rather than calibrate alone."""


def row_of(arm: QuantizedArm, scheme: Scheme) -> str:
    """An arm's row in reports, such as `student QAD int8`."""
    return f"student {_CALLED[arm]} {scheme.label}"


def training_of(arm: QuantizedArm, recipe: Recipe) -> QuantizedTraining:
    """The fine-tuning of an arm: the recipe's, without what the arm does not learn from.

    Labels are in every arm; where they have no weight in the recipe, qat gives them 1.
    """
    training = recipe.quantization.training
    without: dict[str, Any] = dict.fromkeys(_WITHOUT[arm], 0.0)
    if arm == "qat":
        without["label_weight"] = 1.0
    return training.model_copy(update=without)


def drop_pt(worth: Mapping[str, Any]) -> float:
    """Percentage points that a validation.json is below the fp32 student; 0.3 is no more than 0.3."""
    return round(100 * float(worth["fp32_top1"] - worth["top1"]), 9)


def why_not(arm: QuantizedArm, recipe: Recipe) -> str | None:
    """Why a recipe cannot have an arm; None where it can."""
    if arm == "qad-teacher" and not recipe.distillation.needs_teacher:
        return "no term of the objective reads a teacher"
    if arm == "qad-teacher" and not recipe.quantization.training.teacher_weight:
        return "quantization.training.teacher_weight is zero"
    return None
