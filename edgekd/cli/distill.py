"""`edgekd distill`: the way of `edgekd compress`, up to there."""

from __future__ import annotations

import typer

from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath, go

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def distill(recipe: RecipePath, out: Out, fresh: Fresh = False, dry_run: DryRun = False) -> None:
    """Train the teacher and distil the student, in floating point."""
    go(recipe, out, until="distill", fresh=fresh, dry_run=dry_run)
