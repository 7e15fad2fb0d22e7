"""An objective as a recipe has it: TOML to paste."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic import BaseModel

from edgekd.documents.recipe import Distillation

_ALWAYS = ("kind", "weight")


def to_toml(objective: Distillation) -> str:
    """The tables `[distillation]` and `[[distillation.terms]]`, without a term's keys at their defaults."""
    if not objective.terms:
        return f"[distillation]\nlabel_weight = {objective.label_weight}\nterms = []\n"
    tables = [f"[distillation]\nlabel_weight = {objective.label_weight}\n"]
    for term in objective.terms:
        keys = "".join(f"{key} = {toml_value(value)}\n" for key, value in _told(term, _ALWAYS))
        tables.append(f"[[distillation.terms]]\n{keys}")
    return "\n".join(tables)


def _told(section: BaseModel, always: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """The keys that are worth telling, the kind and the weight first."""
    fields = type(section).model_fields
    for key in sorted(fields, key=lambda key: _ALWAYS.index(key) if key in _ALWAYS else len(_ALWAYS)):
        value = getattr(section, key)
        if key in always or value != fields[key].get_default(call_default_factory=True):
            yield key, value


def toml_value(value: Any) -> str:
    """A value as TOML has it; a table is an inline one."""
    match value:
        case BaseModel():
            return (
                "{ "
                + ", ".join(f"{key} = {toml_value(inner)}" for key, inner in _told(value, ("kind",)))
                + " }"
            )
        case tuple():
            return "[" + ", ".join(toml_value(inner) for inner in value) + "]"
        case _:
            # Of a string, a number and a truth TOML's form is JSON's, but for two of its escapes.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
