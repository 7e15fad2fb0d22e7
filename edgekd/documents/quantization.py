"""How a recipe has its student quantized: calibration, fine-tuning, and what is tried before what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from edgekd.documents.base import Section
from edgekd.documents.numbers import Fraction, NotNegative, Positive
from edgekd.documents.scheme import Scheme
from edgekd.documents.training import Devices

Calibrator = Literal["max", "percentile", "entropy", "mse"]
QuantizedArm = Literal["ptq", "mixed", "qat", "qad-self", "qad-teacher", "qad"]


class QuantizedTraining(Section):
    """Quantization-aware distillation: fine-tuning with fake quantization in the loop."""

    epochs: Annotated[int, Field(ge=0)] = 6
    """Passes over the training set; 0 ships the calibrated (PTQ) student."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Examples in a step."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    learning_rate: Positive = 1e-3
    """Peak learning rate: about one percent of the one the student was trained with."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 5e-4
    """Weight decay; scales have none."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the training; fake quantization itself is always done in fp32."""
    devices: Devices = "auto"
    """GPUs to share each batch (DDP), or processes where there is no GPU; auto is one."""
    freeze_scales_after: Fraction = 0.5
    """Part of the epochs after which activation scales no longer move."""
    batch_norm: Literal["folded", "trained"] = "folded"
    """`folded`: batch norm is part of the weights from the start; `trained`: it learns on, and is folded into
    the weights that are rounded."""
    freeze_batch_norm_after: Fraction = 0.1
    """Part of the epochs after which the statistics of a trained batch norm no longer move."""
    label_weight: NotNegative = 0.1
    """Factor of the cross-entropy with the labels."""
    self_weight: NotNegative = 1.0
    """Factor of KD from the student's own fp32 weights (self-teacher)."""
    self_temperature: Positive = 2.0
    """Temperature of that KD."""
    teacher_weight: NotNegative = 0.5
    """Factor of the recipe's distillation terms, from the teacher."""

    @model_validator(mode="after")
    def _something_to_learn(self) -> QuantizedTraining:
        if not (self.label_weight or self.self_weight or self.teacher_weight):
            raise ValueError("every weight is zero: nothing would be learned")
        return self


class Quantization(Section):
    """Symmetric codes, weights per output channel, activations per tensor."""

    calibration_examples: Annotated[int, Field(ge=1)] = 512
    """Training examples, without augmentation, that set the activation scales."""
    calibration_file: Path | None = None
    """An .npz with an array x of examples to set them on instead, in the units and axes of the training file;
    a relative path is taken from the recipe's folder."""
    calibrators: Annotated[tuple[Calibrator, ...], Field(min_length=1)] = (
        *("max", "percentile", "entropy", "mse"),
    )
    """Ways to set the scales; the one whose student validates best is taken."""
    scheme: Scheme = Scheme()
    """How the student is quantized."""
    scheme_file: Path | None = None
    """A file with the scheme, in place of the table; a relative path is taken from the recipe's folder."""
    arms: Annotated[tuple[QuantizedArm, ...], Field(min_length=1)] = ("ptq", "qad")
    """What is tried, cheapest first: calibration alone, with some layers in float, or fine-tuning from the
    labels (qat), the fp32 student, the teacher, or all of them (qad). The first that is within the budget
    ships, else the best; one that stands alone always ships."""
    budget_pt: NotNegative = 0.3
    """Percentage points below the fp32 student, on validation, that are good enough to stop."""
    training: QuantizedTraining = QuantizedTraining()
    """The fine-tuning after calibration."""

    @field_validator("calibrators", "arms")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"'{name}' is named twice")
        return names

    @model_validator(mode="after")
    def _one_scheme(self) -> Quantization:
        if self.scheme_file is not None and self.scheme != Scheme():
            raise ValueError("scheme and scheme_file exclude each other")
        return self
