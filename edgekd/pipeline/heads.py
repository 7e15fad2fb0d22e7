"""The stages of the heads that are trained on the frozen teacher before the student: SSKD's second stage.

One stage a kind of term, so that another objective over the same teacher finds the head again.
"""

from __future__ import annotations

from collections.abc import Sequence

from safetensors.torch import load_file

from edgekd.distillation.setting import State
from edgekd.pipeline.run_folder import Stage

HEAD = "head.safetensors"
PREFIX = "heads-"


def load_heads(stages: Sequence[Stage]) -> dict[str, State]:
    """Kind of a term -> the state of its head, from the stages `heads-KIND`."""
    return {stage.file.name.removeprefix(PREFIX): load_file(stage.path(HEAD)) for stage in stages}
