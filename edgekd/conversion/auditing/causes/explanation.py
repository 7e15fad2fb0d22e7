"""What is said of one operator: the cause's id, the cause in words, and what to change."""

from __future__ import annotations

from dataclasses import dataclass

from edgekd.documents.causes import CAUSES


@dataclass(frozen=True)
class Explanation:
    """Why an operator does not run in int8, or what else is wrong with it.

    Attributes:
        cause_id: an id of documents.causes.
        text: the cause with the names of this graph.
        advice: what to change; None where nothing can be changed.
    """

    cause_id: str
    text: str
    advice: str | None


def because(cause_id: str, text: str | None = None, advice: str | None = None) -> Explanation:
    """An explanation; what is left out is taken from the table of causes."""
    cause = CAUSES[cause_id]
    return Explanation(cause_id, text or cause.title, advice or cause.advice or None)
