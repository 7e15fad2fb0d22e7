"""`edgekd methods`: the distillation methods of the literature, each with its card and its objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.documents.base import Section, nearest
from edgekd.documents.card import Card, read_card
from edgekd.documents.method import Method
from edgekd.documents.methods import METHODS, POLICIES
from edgekd.documents.to_toml import to_toml, toml_value
from edgekd.errors import UsageError

app = typer.Typer(rich_markup_mode=None, add_completion=False, no_args_is_help=True)

COLUMNS = ("method", "group", "needs", "what it is")
POLICY = "policy"
"""Group of what is no objective: who teaches, and on which examples."""

Name = Annotated[
    str,
    typer.Argument(
        help="A method, as `edgekd methods list` names it.",
        autocompletion=lambda: [*METHODS, *POLICIES],
    ),
]


@app.callback()
def methods() -> None:
    """List and show the distillation methods, with their papers and published objectives."""


@app.command("list")
def list_(as_json: AsJson = False) -> None:
    """List every method: its group, what it needs, and what it is."""
    if as_json:
        screen.show_json([*map(_listed, METHODS.values()), *map(_listed_policy, POLICIES)])
        return
    rows = [(one.name, one.group, ", ".join(one.needs), _title(one)) for one in METHODS.values()]
    policies = [(name, POLICY, "", read_card(module).title) for name, module in POLICIES.items()]
    screen.show_table(COLUMNS, [*rows, *policies])


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show a method's card, the keys of its term, and its published objective to paste into a recipe."""
    if name in POLICIES:
        _show_policy(name, as_json=as_json)
    elif name not in METHODS:
        names = (*METHODS, *POLICIES)
        raise UsageError(
            f"there is no method '{name}'{nearest(name, names)}", hint=f"one of {', '.join(names)}"
        )
    elif as_json:
        screen.show_json(_shown(METHODS[name]))
    else:
        _show(METHODS[name])


def _show(method: Method) -> None:
    card = read_card(method.module)
    screen.show(f"{method.name}: {_title(method)}\n\n{_parts(card)}\n")
    if method.section is not None:
        screen.show(f'Keys of a term of kind = "{method.kind}"')
        screen.show_table(("key", "default", "meaning"), _keys(method.section))
        screen.show()
    screen.show(f"Published objective\n\n{to_toml(method.objective)}")
    for pair in method.pairs:
        changes = ", ".join(f"{key} = {value}" for key, value in pair.changes.items())
        screen.show(f"{pair.teacher} -> {pair.student}: {changes}")


def _show_policy(name: str, *, as_json: bool) -> None:
    card = read_card(POLICIES[name])
    if as_json:
        screen.show_json({**_listed_policy(name), "card": dict(card.parts)})
    else:
        screen.show(f"{name}: {card.title}\n\n{_parts(card)}")


def _parts(card: Card) -> str:
    return card.text.split("\n", 2)[2]


def _title(method: Method) -> str:
    title = read_card(method.module).title
    return f"{title.removesuffix('.')} ({method.variant})." if method.variant else title


def _keys(section: type[Section], table: str = "") -> list[tuple[str, str, str]]:
    """Key, default and meaning; those of a table within follow with its name before them."""
    rows = []
    for key, field in section.model_fields.items():
        if isinstance(field.default, Section):
            rows += _keys(type(field.default), f"{table}{key}.")
        elif key != "kind":
            rows.append((table + key, _default(field), " ".join((field.description or "").split())))
    return rows


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "(must be given)"
    value = field.get_default(call_default_factory=True)
    return "-" if value is None else toml_value(value)


def _listed(method: Method) -> Mapping[str, Any]:
    return {
        "name": method.name,
        "group": method.group,
        "needs": list(method.needs),
        "title": _title(method),
        "kind": method.kind,
    }


def _listed_policy(name: str) -> Mapping[str, Any]:
    return {
        "name": name,
        "group": POLICY,
        "needs": [],
        "title": read_card(POLICIES[name]).title,
        "kind": None,
    }


def _shown(method: Method) -> Mapping[str, Any]:
    return {
        **_listed(method),
        "card": dict(read_card(method.module).parts),
        "keys": [
            {"key": key, "default": default, "meaning": meaning}
            for key, default, meaning in (_keys(method.section) if method.section else [])
        ],
        "objective": method.objective.model_dump(mode="json"),
        "pairs": [
            {"teacher": pair.teacher, "student": pair.student, "changes": dict(pair.changes)}
            for pair in method.pairs
        ],
        "toml": to_toml(method.objective),
    }
