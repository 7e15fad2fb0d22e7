"""What the commands that follow a recipe share: their options, and how they go the way up to a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.progress import ScreenListener
from edgekd.documents.report import Report
from edgekd.pipeline.compress import Until, compress, first_missing

RecipePath = Annotated[Path, typer.Argument(help="A recipe, as `edgekd init` writes one.")]
Out = Annotated[Path, typer.Option("--out", help="The run folder; what is finished there is not done again.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Throw finished stages away and begin anew.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]


def go(
    recipe: Path,
    out: Path,
    *,
    until: Until,
    fresh: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
    torch_tensorrt: bool = False,
) -> Report | None:
    """Follow the recipe up to a stage, telling how it goes on; None where there is no verdict."""
    with ScreenListener(quiet=quiet) as listener:
        if not dry_run:
            return compress(recipe, out, listener, until=until, fresh=fresh, torch_tensorrt=torch_tensorrt)
        missing = first_missing(recipe, out, listener, until=until, fresh=fresh)
    if fresh:
        screen.show("every stage would be made anew")
    elif missing is None:
        screen.show("nothing would be done: every stage is finished")
    else:
        screen.show(f"the first stage to be made is {missing}; what follows depends on its result")
    return None
