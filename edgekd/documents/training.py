"""How a network is trained in floating point, as a recipe says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgekd.documents.base import Section
from edgekd.documents.numbers import Fraction, NotNegative, Positive

Devices = Literal["auto"] | Annotated[int, Field(ge=1, le=64)]


class Training(Section):
    """How a network is trained in floating point."""

    epochs: Annotated[int, Field(ge=1)] = 30
    """Passes over the training set."""
    batch_size: Annotated[int, Field(ge=2)] = 128
    """Examples in a step, over all devices."""
    optimizer: Literal["sgd", "adamw"] = "sgd"
    """SGD with Nesterov momentum, or AdamW."""
    learning_rate: Positive = 0.1
    """Peak learning rate."""
    momentum: Fraction = 0.9
    """Momentum of SGD."""
    weight_decay: NotNegative = 5e-4
    """Weight decay; batch-norm parameters, biases and quantization scales have none."""
    schedule: Literal["cosine", "step"] = "cosine"
    """Cosine to one percent of the peak, or steps at `milestones`."""
    warmup_epochs: NotNegative = 1.0
    """Epochs of linear warm-up."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Epochs at which a step schedule multiplies the rate by `gamma`."""
    gamma: Positive = 0.1
    """Factor of a step schedule."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Label smoothing of the cross-entropy."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Arithmetic of the training; auto takes bf16 autocast where it is faster on this machine."""
    view_cycle: Annotated[int, Field(ge=0)] = 0
    """Epochs after which the batches come again, in their order and views, so that the teacher's answers are
    kept, as far as they fit, instead of computed; 0 draws anew in every epoch, as the literature does."""
    devices: Devices = "auto"
    """GPUs to share each batch (DDP), or processes where there is no GPU; auto is one."""

    @model_validator(mode="after")
    def _milestones_fit(self) -> Training:
        if self.schedule == "step" and not self.milestones:
            raise ValueError("a step schedule needs milestones, such as milestones = [150, 180, 210]")
        if self.schedule == "cosine" and self.milestones:
            raise ValueError("milestones are for schedule = 'step'")
        return self
