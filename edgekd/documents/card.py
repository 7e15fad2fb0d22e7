"""Cards: what a method computes, where it comes from, what to mind. A card is the docstring of a module.

Cards are read from the source, with `ast`: showing one imports neither the module nor torch.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent

HEADINGS = ("Formula", "Source", "Shapes", "Defaults", "Traps")
"""The parts of a card, in their order."""


@dataclass(frozen=True)
class Card:
    """A card in its parts."""

    title: str
    """One line."""
    parts: Mapping[str, str]
    """Heading -> its text, without the indent."""

    @property
    def text(self) -> str:
        """The card as it is printed."""
        parts = [f"{heading}\n{textwrap.indent(text, '    ')}" for heading, text in self.parts.items()]
        return "\n".join([f"{self.title}\n", *parts])


@cache
def read_card(module: str) -> Card:
    """The card of a module, by the module's path inside the package, such as `distillation/kd.py`."""
    source = (_PACKAGE / module).read_text(encoding="utf-8")
    title, *lines = (ast.get_docstring(ast.parse(source)) or "").splitlines()
    found: dict[str, list[str]] = {}
    here: list[str] = []
    for line in lines:
        if line in HEADINGS:
            here = found.setdefault(line, [])
        else:
            here.append(line)
    parts = {heading: textwrap.dedent("\n".join(text)).strip("\n") for heading, text in found.items()}
    return Card(title, parts)
