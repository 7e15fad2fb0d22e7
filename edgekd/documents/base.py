"""What every document shares: frozen, unknown keys refused, all problems of a file reported at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgekd.documents.problems import describe, nearest, outside_problems
from edgekd.errors import DocumentError
from edgekd.files import write_text

__all__ = ["Document", "Section", "nearest", "read_mapping"]


class Section(BaseModel):
    """A part of a document: frozen, unknown keys refused, no silent conversion of strings to numbers."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


class Document(Section):
    """A whole file. `schema` is the version of its form; this edgekd reads and writes version 1."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    """Version of the form of this document."""

    title: ClassVar[str] = "document"

    @classmethod
    def parse(cls, data: Mapping[str, Any], *, where: str | Path) -> Self:
        """Validate data read from `where`.

        Raises:
            DocumentError: with every problem of the data, one line each.
        """
        problems = list(outside_problems(data))
        # JSON mode and strict: an array is a tuple and a string a path, but "3" is no number and 1 no truth.
        text = _as_json({**data, "schema": 1}, where)
        try:
            document = cls.model_validate_json(text, strict=True)
        except ValidationError as error:
            problems += describe(cls, error.errors(include_url=False))
        if problems:
            hint = f"edgekd schema {cls.title.replace(' ', '-')} prints every key that is allowed"
            raise DocumentError(where, problems, hint=hint)
        return document

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a TOML or JSON file, by its suffix.

        Raises:
            DocumentError: the file is missing, is not TOML or JSON, or is not this kind of document.
        """
        return cls.parse(read_mapping(path, cls.title), where=path)

    def to_json(self) -> str:
        """The document as indented JSON with a final newline."""
        return json.dumps(self.model_dump(mode="json", by_alias=True), indent=2, ensure_ascii=False) + "\n"

    def write(self, path: Path) -> None:
        """Write the document as JSON, atomically."""
        write_text(path, self.to_json())


def read_mapping(path: Path, title: str) -> dict[str, Any]:
    """Read the top table of a TOML or JSON file.

    Raises:
        DocumentError: the file is missing, unreadable, or not TOML or JSON with a table at the top.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise DocumentError(path, [f"there is no such {title}"]) from None
    except UnicodeDecodeError:
        raise DocumentError(path, [f"is no {title}: not UTF-8 text"]) from None
    except OSError as error:
        raise DocumentError(path, [f"cannot be read: {error.strerror}"]) from None
    try:
        data = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except (ValueError, RecursionError) as error:
        form = "TOML" if path.suffix == ".toml" else "JSON"
        raise DocumentError(path, [f"is not valid {form}: {error}"]) from None
    if not isinstance(data, dict):
        raise DocumentError(path, [f"is no {title}: a table is expected at the top"])
    return data


def _as_json(data: Mapping[str, Any], where: str | Path) -> str:
    try:
        return json.dumps(data, default=str)
    except (ValueError, RecursionError) as error:
        raise DocumentError(where, [f"cannot be read: {error}"]) from None
