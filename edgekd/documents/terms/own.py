"""Sections of the terms in which a network teaches itself."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import model_validator

from edgekd.documents.numbers import Fraction, Positive
from edgekd.documents.terms.base import SoftTargetSection, TermSection


class PSKDTerm(TermSection):
    """Progressive self-knowledge distillation (Kim et al. 2021): last epoch's answers soften the labels."""

    tag: ClassVar[str] = "pskd"
    needs_teacher: ClassVar[bool] = False
    kind: Literal["pskd"]
    """The term; it holds the labels' cross-entropy, so that label_weight = 0 goes with it."""
    alpha: Fraction = 0.8
    """Part of the target, in the last epoch, that is the network's own answer of the epoch before."""


class ExitsTerm(SoftTargetSection):
    """Multi-exit self-distillation: classifiers on earlier stages learn from the labels and from the last."""

    tag: ClassVar[str] = "exits"
    needs_teacher: ClassVar[bool] = False
    kind: Literal["exits"]
    """The term."""
    student_taps: tuple[str, ...] = ()
    """Where the exits are; all stages but the last when not given."""
    exit_weights: tuple[Positive, ...] = ()
    """Factor of each exit, in the order of student_taps; 1 when not given."""
    temperature: Positive = 3.0
    """Temperature T of the softmaxes of an exit and of the network's own logits."""

    @model_validator(mode="after")
    def _a_weight_an_exit(self) -> ExitsTerm:
        if self.exit_weights and len(self.exit_weights) != len(self.student_taps):
            raise ValueError("exit_weights are one for each of student_taps; name these too")
        return self
