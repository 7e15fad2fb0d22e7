"""The cards: every method and policy has one, in the house's layout, and every card is listed."""

import ast
from pathlib import Path

import pytest

import edgekd
from edgekd.documents.card import HEADINGS, read_card
from edgekd.documents.methods import METHODS, POLICIES

PACKAGE = Path(edgekd.__file__).parent
MODULES = sorted({method.module for method in METHODS.values()} | set(POLICIES.values()))


@pytest.mark.parametrize("module", MODULES)
def test_a_card_has_a_title_and_all_headings_in_order(module: str) -> None:
    card = read_card(module)
    assert card.title.endswith(".")
    assert tuple(card.parts) == HEADINGS
    assert all(card.parts.values())


@pytest.mark.parametrize("module", MODULES)
def test_a_card_is_laid_out_for_a_terminal(module: str) -> None:
    title, empty, *lines = docstring(PACKAGE / module).splitlines()
    assert (empty, lines[0]) == ("", HEADINGS[0])
    assert [line for line in (title, *lines) if len(line) > 110] == []
    assert [line for line in lines if line not in HEADINGS and not line.startswith("    ")] == []


@pytest.mark.parametrize("module", MODULES)
def test_the_text_of_a_card_is_the_docstring(module: str) -> None:
    assert read_card(module).text == docstring(PACKAGE / module)


def test_every_card_is_listed() -> None:
    cards = [
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if set(HEADINGS) <= set(docstring(path).splitlines())
    ]
    assert sorted(cards) == MODULES


def docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""
