"""What a run folder says of itself: its current stages, and what each finished stage was made of."""

from __future__ import annotations

from typing import Any, ClassVar

from edgekd.documents.base import Document


class RunIndex(Document):
    """What a run folder holds."""

    title: ClassVar[str] = "run"

    name: str
    """The recipe's name."""
    recipe_sha256: str | None = None
    """Digest of the resolved recipe that the stages follow."""
    stages: dict[str, str] = {}
    """Stage name to the folder of its current result, under stages/."""


class StageFile(Document):
    """A finished stage."""

    title: ClassVar[str] = "stage"

    name: str
    """The stage."""
    key: str
    """Digest of its ingredients."""
    ingredients: dict[str, Any]
    """Everything that the result depends on."""
    seconds: float
    """Time that it took."""
    files: dict[str, str]
    """Every file of the result with its digest."""
