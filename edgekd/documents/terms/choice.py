"""How a section says which term it is: by `kind`, which is `kd` when it is not given.

A function of the user's own is a kind as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Discriminator

from edgekd.documents.function import PREFIX
from edgekd.documents.terms.base import TermSection
from edgekd.documents.terms.python_term import PythonTerm


class _ByKind(Discriminator):
    """Can be hashed, which a union with None asks of its members and the context of an error cannot."""

    __hash__ = object.__hash__


def by_kind(sections: Sequence[type[TermSection]]) -> Discriminator:
    """Chooses one of several sections; another kind is an error that names theirs."""
    return _ByKind(
        _kind,
        custom_error_type="tag",
        custom_error_message="no term has this kind",
        custom_error_context={"key": "kind", "expected": _worded([_written(one) for one in sections])},
    )


def _kind(value: Any) -> str:
    kind = value.get("kind", "kd") if isinstance(value, dict) else getattr(value, "kind", "kd")
    return PythonTerm.tag if isinstance(kind, str) and kind.startswith(PREFIX) else str(kind)


def _written(section: type[TermSection]) -> str:
    """What a recipe says for a kind."""
    return f"{PREFIX}package.module:function" if section is PythonTerm else section.tag


def _worded(kinds: Sequence[str]) -> str:
    """The kinds, worded as pydantic words a literal."""
    *names, last = [repr(kind) for kind in kinds]
    return f"{', '.join(names)} or {last}"
