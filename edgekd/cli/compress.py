"""`edgekd compress`: from a recipe to a verdict."""

from __future__ import annotations

import json

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath, go
from edgekd.cli.verdict import show_report
from edgekd.documents.verdict import EXIT_CODES

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def compress(
    recipe: RecipePath, out: Out, fresh: Fresh = False, dry_run: DryRun = False, as_json: AsJson = False
) -> None:
    """Distil, quantize, export, prove, measure and judge a student; the exit code is the verdict's.

    What is finished in the run folder is not done again, and an interrupted run goes on where it was.
    """
    report = go(recipe, out, until="bench", fresh=fresh, dry_run=dry_run, quiet=as_json)
    if report is None:
        return
    if as_json:
        screen.show_json(json.loads(report.to_json()))
    else:
        show_report(report, out)
    raise typer.Exit(EXIT_CODES[report.verdict])
