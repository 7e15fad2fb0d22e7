"""Section of a term of the user's own."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from edgekd.documents.function import Argument
from edgekd.documents.terms.base import TermSection


class PythonTerm(TermSection):
    """A term of your own: `python:package.module:function`.

    Whether it reads the teacher is not known before it is built: the recipe always has one for it.
    """

    tag: ClassVar[str] = "python"
    kind: Annotated[str, Field(pattern=r"^python:[\w.]+:\w+$")]
    """The function, called with setting= and the entries of args, that returns an
    edgekd.distillation.term.Term."""
    args: dict[str, Argument] = {}
    """Keyword arguments of the function."""
