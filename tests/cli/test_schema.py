"""`edgekd schema`."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgekd.cli.schema import DOCUMENTS, KINDS
from edgekd.documents.base import Document


def test_every_kind_has_a_name() -> None:
    names = "recipe scheme profile spec manifest job run-log measurement bench prediction calibration verdict"
    more = "report audit engine comparison arms sensitivity divergence saturation"
    assert list(KINDS) == [*names.split(), *more.split()]


@pytest.mark.parametrize("name", KINDS)
def test_the_schema_is_json_with_the_keys_of_the_file(edgekd: Any, name: str) -> None:
    result = edgekd("schema", name)
    printed = json.loads(result.stdout)
    assert (result.exit_code, result.stderr) == (0, "")
    assert printed["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert printed["additionalProperties"] is False
    assert "schema" in printed["properties"]
    assert "schema_version" not in printed["properties"]


def test_every_key_of_every_document_is_described() -> None:
    bare = [
        f"{document.title}: {section}.{key}"
        for document in DOCUMENTS
        for section, body in {document.title: document.model_json_schema(), **_sections(document)}.items()
        for key, value in body.get("properties", {}).items()
        if "description" not in value and "$ref" not in value  # a section has the words of its class
    ]
    assert bare == []


def test_an_unknown_kind_is_corrected(edgekd: Any) -> None:
    result = edgekd("schema", "runlog")
    assert result.exit_code == 2
    assert result.stderr == (
        f"error: there is no document 'runlog'; did you mean 'run-log'?\n  try: one of {', '.join(KINDS)}\n"
    )


def _sections(document: type[Document]) -> dict[str, Any]:
    return dict(document.model_json_schema().get("$defs", {}))
