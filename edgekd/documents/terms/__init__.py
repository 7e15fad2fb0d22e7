"""The sections of the distillation terms; a section chooses its term by `kind`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Discriminator, Tag

from edgekd.documents.terms.base import TermSection
from edgekd.documents.terms.logits import JSTerm, KDTerm

__all__ = ["JSTerm", "KDTerm", "Term", "TermSection"]

SECTIONS: tuple[type[TermSection], ...] = (KDTerm, JSTerm)
"""Every term's section, in the order in which `edgekd methods list` shows them."""


def _kind(value: Any) -> str:
    kind = value.get("kind", "kd") if isinstance(value, dict) else getattr(value, "kind", "kd")
    return str(kind)


def _names() -> str:
    """The kinds, worded as pydantic words a literal."""
    *names, last = [repr(one.tag) for one in SECTIONS]
    return f"{', '.join(names)} or {last}"


Term = Annotated[
    Annotated[KDTerm, Tag("kd")] | Annotated[JSTerm, Tag("js")],
    Discriminator(
        _kind,
        custom_error_type="tag",
        custom_error_message="no term has this kind",
        custom_error_context={"key": "kind", "expected": _names()},
    ),
]
