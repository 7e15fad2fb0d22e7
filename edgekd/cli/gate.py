"""`edgekd gate`: judge a finished run again, by its own gate or by another recipe's. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.cli.verdict import show_report
from edgekd.documents.verdict import EXIT_CODES
from edgekd.pipeline.rejudge import rejudge

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def gate(
    run: Annotated[Path, typer.Argument(help="A run folder of `edgekd compress`.")],
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Judge by the [gate] of this recipe, not the run's own.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a finished run again; the exit code is the verdict's."""
    report = rejudge(run, recipe)
    if as_json:
        screen.show_json(json.loads(report.to_json()))
    else:
        show_report(report, run)
    raise typer.Exit(EXIT_CODES[report.verdict])
