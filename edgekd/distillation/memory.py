"""What a term remembers of every training example."""

from __future__ import annotations

from edgekd.distillation.term import Survey
from edgekd.errors import UsageError


def check_memory(count: int, survey: Survey, *, wanted_by: str) -> None:
    """See that a memory of `count` examples is one of this training split.

    Raises:
        UsageError: the split has another number of examples.
    """
    if count != len(survey.labels_N):
        raise UsageError(
            f"remembers {count} examples, and the training split has {len(survey.labels_N)}",
            where=f"term {wanted_by}",
            hint="build the objective for this task",
        )
