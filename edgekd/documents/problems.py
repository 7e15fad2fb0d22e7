"""What is wrong with a file, a line each: key, what was found, what is allowed, what may have been meant.

pydantic reports with locations and words of its own: the tag of a union is part of a location, each member of
a union of scalars complains for itself, and a tuple with a bad item also seems too short. Here its errors
become lines for the author of the file.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, time
from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

_KEY = "[key]"
"""What pydantic puts behind a key of a table that is itself wrong."""

_SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}


def nearest(word: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the nearest known word, or nothing."""
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean '{found[0]}'?" if found else ""


def describe(document: type[BaseModel], errors: Sequence[ErrorDetails]) -> list[str]:
    """One line for each thing that is wrong, in pydantic's order."""
    lines = [_line(document, error) for error in errors if not _follows(error, errors)]
    return list(dict.fromkeys(lines))


def outside_problems(data: Mapping[str, object]) -> Iterator[str]:
    """What pydantic is not asked: the version of the form, and dates, which TOML has and no document."""
    if "schema" not in data:
        yield "schema: is missing; write schema = 1"
    elif data["schema"] != 1 or type(data["schema"]) is not int:
        yield f"schema: found {_found(data['schema'])}; this edgekd reads schema = 1"
    yield from _dates(data, "")


def _dates(data: object, key: str) -> Iterator[str]:
    match data:
        case Mapping():
            for name, value in data.items():
                yield from _dates(value, _join(key, name))
        case list():
            for index, value in enumerate(data):
                yield from _dates(value, f"{key}[{index}]")
        case date() | time():  # a datetime is a date
            yield f"{key}: found the date or time {data}; write it in quotes if a string is meant"


def _follows(error: ErrorDetails, errors: Sequence[ErrorDetails]) -> bool:
    """Whether a tuple only seems too short because its bad items were not counted."""
    loc = error["loc"]
    return error["type"] == "too_short" and any(
        len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in errors
    )


def _line(document: type[BaseModel], error: ErrorDetails) -> str:
    place = _locate(document, error["loc"])
    kind, found, context = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "extra_forbidden":
            known = _keys(place.owner)
            return f"{place.key}: unknown key{nearest(place.last, known) or '; allowed: ' + ', '.join(known)}"
        case "missing":
            return f"{place.key}: is missing"
        case "tag":  # of a union: the key that chooses the section is named by the section's own error
            key, name = context["key"], found.get(context["key"])
            return f"{_join(place.key, key)}: found {_found(name)}; {_allowed(name, context['expected'])}"
        case "json_invalid":
            return f"cannot be read: {context['error']}"
        case "value_error" if isinstance(found, dict | list):
            return f"{place.key}: {_own_words(error)}" if place.key else _own_words(error)
    expected = _one_of(place.choices) if place.choices else _expected(error)
    return f"{place.key}: found {_found(found)}; {expected}"


def _expected(error: ErrorDetails) -> str:
    context = error.get("ctx", {})
    match error["type"]:
        case "int_type":
            return "a whole number is expected"
        case "float_type":
            return "a number is expected"
        case "finite_number":
            return "a finite number is expected"
        case "bool_type":
            return "true or false is expected"
        case "string_type":
            return "a string is expected"
        case "tuple_type":
            return "an array is expected"
        case "dict_type" | "model_type":
            return "a table is expected"
        case "literal_error":
            return _allowed(error["input"], context["expected"])
        case "greater_than":
            return f"more than {_number(context['gt'])} is expected"
        case "greater_than_equal":
            return f"at least {_number(context['ge'])} is expected"
        case "less_than":
            return f"less than {_number(context['lt'])} is expected"
        case "less_than_equal":
            return f"at most {_number(context['le'])} is expected"
        case "too_short":
            return f"at least {context['min_length']} of them must be given"
        case "string_pattern_mismatch":
            return f"the pattern is {context['pattern']}"
        case _:
            return _own_words(error)


def _own_words(error: ErrorDetails) -> str:
    """The message of a validator of ours, or of pydantic."""
    message = error["msg"].removeprefix("Value error, ")
    return message[:1].lower() + message[1:]


def _allowed(found: object, expected: str) -> str:
    """The values of a literal, which pydantic lists as `'a', 'b' or 'c'`."""
    words = [word.strip(" '") for word in expected.replace(" or ", ", ").split(",")]
    return f"allowed: {expected}" + (nearest(found, words) if isinstance(found, str) else "")


def _one_of(choices: tuple[Any, ...]) -> str:
    """What a union of scalars takes, in the order in which it is declared."""
    names = [_SCALARS.get(choice, "another type") for choice in choices]
    return f"{', '.join(names[:-1])} or {names[-1]} is expected"


def _number(value: float) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _found(value: object) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case dict():
            return "a table"
        case list():
            return "an array" if value else "an empty array"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _join(key: str, name: str) -> str:
    """The path of a key of the table at `key`; what is no bare key of TOML is quoted."""
    name = name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else json.dumps(name, ensure_ascii=False)
    return f"{key}.{name}" if key else name


def _keys(owner: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in owner.model_fields.items()]


@dataclass(frozen=True)
class _Place:
    """Where an error is: the key path to print, the section that owns the last key, the scalars it may be."""

    key: str
    last: str
    owner: type[BaseModel]
    choices: tuple[Any, ...] = ()


def _locate(document: type[BaseModel], loc: tuple[int | str, ...]) -> _Place:
    """Follow an error's location through the types of a document; tags of unions are no keys of the file."""
    annotation: Any = document
    owner, key, last = document, "", ""
    for part in loc:
        types = _alternatives(annotation)
        sections = [one for one in types if isinstance(one, type) and issubclass(one, BaseModel)]
        container = next((one for one in types if get_origin(one) in (tuple, dict)), None)
        if isinstance(part, int):
            key, annotation = f"{key}[{part}]", _item(container)
        elif part == _KEY:
            key += " (the key itself)"
        elif len(sections) > 1:
            annotation = next((one for one in sections if part == getattr(one, "tag", one.__name__)), None)
        elif sections or container or len(types) < 2:
            owner = sections[0] if sections else owner
            key, last = _join(key, part), part
            annotation = _field(sections[0], part) if sections else _item(container)
        else:
            return _Place(key, last, owner, tuple(types))
    return _Place(key, last, owner)


def _alternatives(annotation: Any) -> list[Any]:
    """The types that a value may have: members of unions, without None and without annotations."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [one for member in get_args(annotation) for one in _alternatives(member)]
    return [] if annotation in (None, NoneType) else [annotation]


def _item(container: Any) -> Any:
    """Type of the items of a tuple, or of the values of a dict."""
    inner = get_args(container)
    if not inner:
        return None
    return inner[1] if get_origin(container) is dict else inner[0]


def _field(section: type[BaseModel], name: str) -> Any:
    return next(
        (field.annotation for key, field in section.model_fields.items() if name in (key, field.alias)), None
    )
