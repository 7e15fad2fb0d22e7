"""How a section says which term it is: by `kind`, which is `kd` when it is not given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Discriminator

from edgekd.documents.terms.base import TermSection


class _ByKind(Discriminator):
    """Can be hashed, which a union with None asks of its members and the context of an error cannot."""

    __hash__ = object.__hash__


def by_kind(sections: Sequence[type[TermSection]]) -> Discriminator:
    """Chooses one of several sections; another kind is an error that names theirs."""
    return _ByKind(
        _kind,
        custom_error_type="tag",
        custom_error_message="no term has this kind",
        custom_error_context={"key": "kind", "expected": _worded([one.tag for one in sections])},
    )


def _kind(value: Any) -> str:
    kind = value.get("kind", "kd") if isinstance(value, dict) else getattr(value, "kind", "kd")
    return str(kind)


def _worded(kinds: Sequence[str]) -> str:
    """The kinds, worded as pydantic words a literal."""
    *names, last = [repr(kind) for kind in kinds]
    return f"{', '.join(names)} or {last}"
