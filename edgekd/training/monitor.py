"""The monitor: a student that imitates its teacher ever better and validates worse.

Formula
    Over the last n = 6 validations, halves of 3: flagged where the mean of KL(teacher || student) falls from
    the first half to the second, and the mean top-1 falls by more than z = 1.64 binomial standard errors,
    sqrt(2 p (1 - p) / N), with p the mean of both halves and N the validation examples.
Source
    Tiapkin et al., "On Teacher Hacking in Language Model Distillation", arXiv 2502.02671, where the distance
    to the teacher falls on while the truth gets farther away; the rule is edgekd's own.
Shapes
    validation_kl and validation_top1 of each epoch, as the loop records them; KL at T = 1, in nats.
Defaults
    always on where a teacher has logits; told once, in the result, and as a note of the report.
Traps
    It says that imitation has stopped to pay, not why: a weak or overconfident teacher, or its mistakes on
    this data. Try more labels (label_weight), more varied data, fewer epochs, another teacher.
    The epoch that ships is the one that validates best: what came after it is not shipped.
    Few validation examples hide it: 500 resolve a fall of about 4 points at a top-1 of 80 %.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgekd.training.result import EpochRecord

_WINDOW = 6
_Z = 1.64


def imitation_flag(history: Sequence[EpochRecord], count: int) -> str | None:
    """What to tell the user where the last validations show better imitation and worse answers.

    Args:
        history: the epochs so far, in order.
        count: validation examples N.
    """
    last = [record for record in history if record.validation_kl is not None][-_WINDOW:]
    if len(last) < _WINDOW:
        return None
    before, after = last[: _WINDOW // 2], last[_WINDOW // 2 :]
    halves = (before, after)
    kl_before, kl_after = (_mean([record.validation_kl or 0.0 for record in half]) for half in halves)
    p, q = (_mean([record.validation_top1 or 0.0 for record in half]) for half in halves)
    middle = (p + q) / 2  # at p = 1 alone the noise would seem to be none
    if kl_after >= kl_before or p - q <= _Z * math.sqrt(2 * middle * (1 - middle) / count):
        return None
    return (
        f"epochs {last[0].epoch} to {last[-1].epoch}: the student imitates the teacher better "
        f"(KL {kl_before:.3g} to {kl_after:.3g}) and validates worse "
        f"(top-1 {100 * p:.1f} % to {100 * q:.1f} %)"
    )


def imitation_flags(history: Sequence[EpochRecord], count: int) -> tuple[str, ...]:
    """The first such observation of a whole training, if there is one."""
    found = (imitation_flag(history[:end], count) for end in range(_WINDOW, len(history) + 1))
    return tuple(flag for flag in found if flag is not None)[:1]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
