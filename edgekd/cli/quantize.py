"""`edgekd quantize`: the way of `edgekd compress`, up to there."""

from __future__ import annotations

import typer

from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath, go

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def quantize(recipe: RecipePath, out: Out, fresh: Fresh = False, dry_run: DryRun = False) -> None:
    """Calibrate the student, and fine-tune it with quantization in the loop."""
    go(recipe, out, until="quantize", fresh=fresh, dry_run=dry_run)
