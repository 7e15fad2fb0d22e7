"""The index of a file of codebooks: what its tensors are."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.base import Document, Section
from edgekd.documents.common import Sha256


class CodebookEntry(Section):
    """One tensor in codes."""

    shape: tuple[Annotated[int, Field(ge=0)], ...]
    """Its shape."""
    bucket: Annotated[int, Field(ge=1)]
    """Elements of a bucket; the last one may hold fewer."""
    levels: Annotated[int, Field(ge=2, le=256)]
    """How many points it has."""
    learned: bool
    """Whether its points are in the file; they are uniform if not."""


class CodebookIndex(Document):
    """What a file of codebooks holds, and a digest by which damage is seen."""

    title: ClassVar[str] = "codebook index"

    books: dict[str, CodebookEntry]
    """Name of a parameter -> how it is stored."""
    tied: dict[str, str] = {}
    """Further name of a shared parameter -> its name in `books`."""
    sha256: Sha256
    """Digest of everything else in the file."""
