"""`edgekd init`: a commented recipe to start from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.documents.base import nearest
from edgekd.errors import UsageError
from edgekd.files import write_text

STARTERS = ("digits", "sskd", "npz")

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def init(
    starter: Annotated[
        str, typer.Argument(help=f"One of {', '.join(STARTERS)}.", autocompletion=lambda: STARTERS)
    ],
    recipe: Annotated[Path, typer.Argument(help="The file to write.")],
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a commented recipe to start from.

    digits needs no data of your own and is done in two minutes; sskd is the same data, distilled by SSKD in
    its three stages; npz takes two .npz files with x and y.
    """
    if starter not in STARTERS:
        raise UsageError(
            f"there is no starter '{starter}'{nearest(starter, STARTERS)}",
            hint=f"one of {', '.join(STARTERS)}",
        )
    if recipe.suffix != ".toml":
        raise UsageError("a recipe is a .toml file", where=recipe)
    if recipe.exists() and not force:
        raise UsageError("is there already", where=recipe, hint="choose another name, or --force")
    write_text(
        recipe, files("edgekd.cli").joinpath("starters", f"{starter}.toml").read_text(encoding="utf-8")
    )
    screen.show(f"{recipe} is written: edgekd compress {recipe} --out runs/{recipe.stem}")
