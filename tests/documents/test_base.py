"""Every document: it comes back from its own JSON, takes nothing silently, and complains in one way only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekd.documents.base import Document
from edgekd.documents.recipe import KDTerm, Recipe
from edgekd.errors import DocumentError
from tests.documents.cases import DOCUMENTS, RECIPE, changed, problems

KINDS = sorted(DOCUMENTS, key=lambda kind: kind.title)
every_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.title)

TEXTS = st.text(max_size=8) | st.sampled_from(["digits", "python:a:b", "\ud800", "../x", "x" * 200])
NUMBERS = st.integers() | st.floats() | st.sampled_from([10**400, -1, 0])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


def parsed(kind: type[Document], data: dict[str, Any]) -> Document | None:
    """The document, or None when it is refused, which is always done with a line that names a key."""
    caught: tuple[str, ...] = ()
    try:
        return kind.parse(data, where="a file")
    except DocumentError as error:
        caught = error.problems
    assert caught
    assert not [line for line in caught if line.startswith((":", "."))]
    return None


def paths_of(data: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of everything inside a JSON value."""
    keys = data.keys() if isinstance(data, dict) else range(len(data)) if isinstance(data, list) else ()
    return [one for key in keys for one in ((*path, key), *paths_of(data[key], (*path, key)))]  # type: ignore[index]


@every_kind
def test_a_document_comes_back_from_its_own_json(kind: type[Document]) -> None:
    document = kind.parse(DOCUMENTS[kind], where="a file")
    assert kind.parse(json.loads(document.to_json()), where="a file") == document
    assert json.loads(document.to_json())["schema"] == 1


@every_kind
def test_a_document_is_the_same_read_from_a_file(kind: type[Document], tmp_path: Path) -> None:
    document = kind.parse(DOCUMENTS[kind], where="a file")
    document.write(tmp_path / "document.json")
    assert kind.read(tmp_path / "document.json") == document


@every_kind
def test_a_number_in_quotes_and_a_one_for_true_are_refused(kind: type[Document]) -> None:
    data = DOCUMENTS[kind]
    taken = []
    for path in paths_of(data):
        value: Any = data
        for key in path:
            value = value[key]
        wrong = (
            int(value) if isinstance(value, bool) else str(value) if isinstance(value, int | float) else None
        )
        if (
            wrong is None or path[-1] == "schema" or "args" in path
        ):  # an argument of a network may be a string
            continue
        try:
            kind.parse(changed(data, path, wrong), where="a file")
        except DocumentError:
            continue
        taken.append(path)
    assert taken == []


@every_kind
@settings(max_examples=60, deadline=None)
@given(draw=st.data())
def test_a_damaged_document_parses_or_is_refused(kind: type[Document], draw: st.DataObject) -> None:
    path = draw.draw(st.sampled_from(paths_of(DOCUMENTS[kind])))
    extra = draw.draw(
        st.sampled_from([path, (*path[:-1], path[-1] if isinstance(path[-1], int) else "surplus")])
    )
    data = changed(DOCUMENTS[kind], extra, draw.draw(VALUES))
    document = parsed(kind, data)
    if document is not None:
        assert kind.parse(json.loads(document.to_json()), where="a file") == document


@every_kind
@settings(max_examples=15, deadline=None)
@given(
    data=st.dictionaries(TEXTS | st.sampled_from(["schema", "name", "schema_version"]), VALUES, max_size=4)
)
def test_any_mapping_parses_or_is_refused(kind: type[Document], data: dict[str, Any]) -> None:
    parsed(kind, data)


def test_a_document_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Recipe(name="a").name = "b"  # type: ignore[misc]


def test_what_toml_and_json_write_alike_is_taken() -> None:
    recipe = Recipe.parse(RECIPE, where="a file")
    assert recipe.student.training.learning_rate == 1.0
    assert recipe.student.training.milestones == (10, 20)
    assert recipe.task.train == Path("train.npz")  # type: ignore[union-attr]
    assert recipe.teacher.args == {"width": 2, "bias": False, "rate": 0.5, "kind": "a"}
    assert recipe.distillation.terms == (KDTerm(temperature=2),)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.toml", b"name = ", "is not valid TOML: Invalid value (at end of document)"),
        (
            "a.json",
            b"{",
            "is not valid JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("a.json", b"[]", "is no recipe: a table is expected at the top"),
        ("a.toml", b"\xff", "is no recipe: not UTF-8 text"),
    ],
)
def test_a_file_that_is_no_document_is_named(tmp_path: Path, name: str, content: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DocumentError) as caught:
        Recipe.read(tmp_path / name)
    assert str(caught.value) == f"{tmp_path / name}: 1 problem\n  {problem}"


def test_a_file_that_is_nested_too_deep_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("[" * 100_000)
    with pytest.raises(DocumentError, match="is not valid JSON: maximum recursion depth exceeded"):
        Recipe.read(tmp_path / "a.json")


def test_a_number_of_too_many_digits_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"schema": ' + "1" * 5000 + "}")
    with pytest.raises(DocumentError, match="is not valid JSON: Exceeds the limit"):
        Recipe.read(tmp_path / "a.json")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        Recipe.read(tmp_path / "none.toml")
    assert str(caught.value) == f"{tmp_path / 'none.toml'}: 1 problem\n  there is no such recipe"


def test_a_folder_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        Recipe.read(tmp_path)
    assert caught.value.problems == ("cannot be read: Is a directory",)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({}, "schema: is missing; write schema = 1"),
        ({"schema": 2}, "schema: found 2; this edgekd reads schema = 1"),
        ({"schema": True}, "schema: found true; this edgekd reads schema = 1"),
        ({"schema": 1.0}, "schema: found 1.0; this edgekd reads schema = 1"),
        ({"schema": "1"}, "schema: found '1'; this edgekd reads schema = 1"),
    ],
)
def test_another_version_of_the_form_is_refused(schema: dict[str, Any], problem: str) -> None:
    assert problems(Recipe, {"name": "a", **schema}) == (problem,)
