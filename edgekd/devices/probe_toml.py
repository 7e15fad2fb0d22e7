"""A profile as TOML: plain keys first, then a table for each part, as the shipped profiles are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from edgekd.documents.profile import Figure, Profile
from edgekd.documents.to_toml import toml_value


def profile_text(profile: Profile) -> str:
    """The profile as the text of a file, without keys that say nothing; read again it is the same profile."""
    given = _given(profile)
    plain = {key: value for key, value in given.items() if not _is_tables(value)}
    tables = [table for key, value in given.items() if _is_tables(value) for table in _tables(key, value)]
    return "\n".join((_lines(plain), *tables))


def _given(section: BaseModel) -> dict[str, Any]:
    """The keys of a section, as the file names them, whose values are not their defaults."""
    fields = type(section).model_fields
    return {
        field.alias or name: getattr(section, name)
        for name, field in fields.items()
        if field.alias == "schema" or getattr(section, name) != field.get_default(call_default_factory=True)
    }


def _is_tables(value: object) -> bool:
    """Whether a value of the top table is written as tables; a figure is an inline one."""
    match value:
        case Figure():
            return False
        case tuple():
            return any(isinstance(item, BaseModel) for item in value)
        case _:
            return isinstance(value, BaseModel | dict)


def _tables(key: str, value: Any) -> Iterator[str]:
    match value:
        case BaseModel():
            yield f"[{key}]\n{_lines(_given(value))}"
        case dict():
            for name, section in value.items():
                yield f"[{key}.{_key(name)}]\n{_lines(_given(section))}"
        case _:
            for section in value:
                yield f"[[{key}]]\n{_lines(_given(section))}"


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else toml_value(name)


def _lines(keys: Mapping[str, Any]) -> str:
    return "".join(f"{key} = {_value(value)}\n" for key, value in keys.items())


def _value(value: Any) -> str:
    """A value as TOML has it; whole numbers of figures without a point, as people write them."""
    if isinstance(value, Figure) and value.value.is_integer():
        return toml_value(value).replace(f"value = {value.value}", f"value = {int(value.value)}", 1)
    return toml_value(value)
