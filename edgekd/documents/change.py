"""Change some keys of an objective by name, as strictly as a file is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from edgekd.documents.problems import describe
from edgekd.documents.recipe import Distillation

LABEL_WEIGHT = "label_weight"


def change(
    objective: Distillation, kind: str | None, changes: Mapping[str, Any]
) -> tuple[Distillation, list[str]]:
    """An objective with other values for some keys.

    Args:
        objective: what is changed.
        kind: of the term whose keys are meant where a key names none.
        changes: `label_weight`, a key of that term, or `KIND.KEY` for another one, with their values; a key
            of a table within the term is `TABLE.KEY`.

    Returns:
        The changed objective, or the objective as it was together with what is wrong with the changes.
    """
    kinds = [term.kind for term in objective.terms]
    by_kind: dict[str | None, dict[str, Any]] = {}
    for key, value in changes.items():
        first, _, rest = key.partition(".")
        named, key = (first, rest) if rest and first in kinds else (kind, key)
        by_kind.setdefault(None if key == LABEL_WEIGHT else named or "", {})[key] = value
    own = by_kind.pop(None, {})
    problems = [
        f"{key}: unknown key; there is no term, only {LABEL_WEIGHT}"
        for named, keys in by_kind.items()
        for key in keys
        if named not in kinds
    ]
    terms = []
    for term in objective.terms:
        changed, found = _checked(term, by_kind.get(term.kind, {}))
        terms.append(changed)
        problems += [problem if term.kind == kind else f"{term.kind}.{problem}" for problem in found]
    changed, found = _checked(objective.model_copy(update={"terms": tuple(terms)}), own)
    problems += found
    return (objective if problems else changed), problems


def _checked(value: Any, changes: Mapping[str, Any]) -> tuple[Any, list[str]]:
    """A section with other values for some keys, validated as strictly as a file, or what is wrong."""
    data = value.model_dump(mode="json")
    for key, new in changes.items():
        table, _, inner = key.rpartition(".")
        place = data.setdefault(table, {}) if table else data
        if isinstance(place, dict):
            place[inner] = new
    try:
        return type(value).model_validate_json(json.dumps(data), strict=True), []
    except ValidationError as error:
        return value, describe(type(value), error.errors(include_url=False))
