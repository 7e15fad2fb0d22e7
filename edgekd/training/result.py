"""What a training leaves behind beside the weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class EpochRecord:
    """One epoch. Epochs count from 1; epoch 0 is the network as it came, where that was a candidate."""

    epoch: int
    learning_rate: float
    """At the epoch's last step; 0 for epoch 0."""
    loss: float | None
    """Mean of the objective over the steps; None for epoch 0."""
    parts: Mapping[str, float]
    """Mean of each part of the objective, before its weight."""
    validation_loss: float
    """Cross-entropy of the validation split in fp32, in nats."""
    validation_top1: float | None
    """Share of right answers on the validation split, in fp32; None where the objective itself is judged."""
    seconds: float
    """Wall time, validation included."""
    validation_kl: float | None = None
    """KL(teacher || network) on the validation split at T = 1, in nats; None where there is no teacher."""
    watched_top1: float | None = None
    """Share of right answers on a split that is only watched; never chosen on. None where there is none."""

    def is_better_than(self, other: EpochRecord) -> bool:
        """Higher validation top-1; among equals lower validation loss, since small splits tie often."""
        own, its = (one.validation_top1 or 0.0 for one in (self, other))
        return (own, -self.validation_loss) > (its, -other.validation_loss)


@dataclass(frozen=True)
class TrainingResult:
    """How a training went; the weights of its best epoch are in the network that was trained."""

    best: EpochRecord
    history: tuple[EpochRecord, ...]
    """Every epoch, those of an interrupted run included."""
    resumed_from: int | None
    """The epoch after which a checkpoint was taken up; None when the training began afresh."""
    precision: str
    """Arithmetic and layout, such as `bf16, channels last`."""
    heads: Mapping[str, Tensor] = field(default_factory=dict)
    """State of the objective's heads in the best epoch, on the CPU; what a memory holds is left out."""
    flags: tuple[str, ...] = ()
    """What the user should know of how it went, a line each; see edgekd/training/monitor.py."""

    @property
    def best_epoch(self) -> int:
        """The epoch whose weights were kept."""
        return self.best.epoch

    @property
    def validation_top1(self) -> float | None:
        """Its share of right answers on the validation split; None where the objective itself was judged."""
        return self.best.validation_top1

    def summary(self) -> dict[str, Any]:
        """The result as a JSON value."""
        return {
            "best_epoch": self.best_epoch,
            "validation_top1": self.validation_top1,
            "validation_loss": self.best.validation_loss,
            "resumed_from": self.resumed_from,
            "precision": self.precision,
            "flags": list(self.flags),
            "history": [asdict(record) for record in self.history],
        }
