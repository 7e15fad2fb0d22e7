"""`edgekd export`: the way of `edgekd compress`, up to there."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath, go

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def export(
    recipe: RecipePath,
    out: Out,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    torch_tensorrt: Annotated[
        bool, typer.Option("--torch-tensorrt", help="Compile the student for the GPU at hand too.")
    ] = False,
) -> None:
    """Export every graph, prove it, and write the bundles.

    A program of Torch-TensorRT lies in RUN/stages/torch-tensorrt-KEY/student.pt2; `edgekd bench` runs it with
    --runtime torch-tensorrt and --inputs X.npy.
    """
    go(recipe, out, until="export", fresh=fresh, dry_run=dry_run, torch_tensorrt=torch_tensorrt)
