"""What a term may read of one training step.

Every term takes the whole step, so that a term which needs more than logits adds a field here and leaves the
others as they are. Axes: B examples, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

TEACHER = "teacher"
"""Name of the recipe's teacher among the sources of soft targets."""
SELF = "self"
"""Name of the student's own fp32 weights among the sources, when the student is being quantized."""


@dataclass(frozen=True)
class Step:
    """One batch as the objective sees it."""

    student_logits_BK: Tensor
    """(B, K), floating; carries the gradient."""
    labels_B: Tensor
    """(B,), int64."""
    sources: Mapping[str, Tensor]
    """Logits (B, K) of each network that teaches, on the same view of the same examples; no gradient."""


class Term(Protocol):
    """One summand of the objective: a function of the step, and the sources that it reads."""

    @property
    def sources(self) -> tuple[str, ...]:
        """Names of the teaching networks whose logits must be in the step."""

    def __call__(self, step: Step) -> Tensor:
        """The term's value, a scalar float32 (or float64) tensor."""
