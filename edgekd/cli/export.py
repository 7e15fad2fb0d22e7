"""`edgekd export`: the way of `edgekd compress`, up to there."""

from __future__ import annotations

import typer

from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath, go

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(recipe: RecipePath, out: Out, fresh: Fresh = False, dry_run: DryRun = False) -> None:
    """Export every graph, prove it, and write the bundles."""
    go(recipe, out, until="export", fresh=fresh, dry_run=dry_run)
