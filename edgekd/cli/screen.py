"""The only place that prints: results on standard output, everything else on standard error.

Plain text without escape codes when the stream is no terminal; `--json` prints JSON and nothing else.
"""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, TextIO

import typer

if TYPE_CHECKING:
    from rich.console import Console

_OBEYED = "\N{REPLACEMENT CHARACTER}"
_PIPE_COLUMNS = 1000
"""Width of what is no terminal: a table takes what it needs, and no line is broken."""


def show(text: str = "") -> None:
    """Print a result."""
    typer.echo(text)


def show_json(value: Mapping[str, object] | Sequence[object]) -> None:
    """Print a result as JSON."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def show_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> None:
    """Print a table; the columns named in `right` are aligned to the right."""
    from rich.table import Table  # 30 ms that `edgekd --help` does not spend
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(plain(cell)) for cell in row))
    screen = console(sys.stdout)
    with screen.capture() as drawn:
        screen.print(table)
    show("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def plain(text: str) -> str:
    """A text without what a terminal would obey: it may be a board's, or a stranger's graph's."""
    return "".join(mark if mark.isprintable() or mark in "\n\t" else _OBEYED for mark in text)


def note(text: str) -> None:
    """Print something that is no result, such as progress, on standard error."""
    typer.echo(plain(text), err=True)


def warning(text: str) -> None:
    """Print a warning on standard error."""
    typer.secho("warning: ", err=True, nl=False, fg="yellow")
    typer.echo(plain(text), err=True)


def error(text: str) -> None:
    """Print an error on standard error."""
    typer.secho("error: ", err=True, nl=False, fg="red", bold=True)
    typer.echo(plain(text), err=True)


def console(stream: TextIO | None) -> Console:
    """A Rich console on a stream, for tables and progress bars; text is printed as it is, without markup."""
    from rich.console import Console

    width = None if stream is not None and stream.isatty() else _PIPE_COLUMNS
    # A stream that was closed, as in `edgekd ... >&-`, is None: what is printed goes nowhere.
    return Console(file=stream or io.StringIO(), width=width, markup=False, emoji=False, highlight=False)


def close() -> None:
    """Send what is still buffered for standard output nowhere: its reader is gone, or its disk is full."""
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())
