"""`edgekd quantize`: the way of `edgekd compress` up to there, or several ways to quantize side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.cli.progress import ScreenListener
from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath, go
from edgekd.documents.arms import Arms
from edgekd.errors import UsageError
from edgekd.pipeline.quantize.arms import DESCRIPTIONS, SETS
from edgekd.pipeline.quantize.render import HEADINGS, cells
from edgekd.pipeline.quantize.run import Request, quantize_arms

app = typer.Typer(rich_markup_mode=None, add_completion=False)

AllArms = Annotated[
    bool, typer.Option("--arms", help="Make several quantized students and put them side by side.")
]
Which = Annotated[
    str | None,
    typer.Option(
        "--which",
        help=f"The arms, separated by commas: {', '.join(SETS)} or {', '.join(DESCRIPTIONS)}. "
        "Default: standard; fp32 is always there.",
    ),
]


@app.command()
def quantize(
    recipe: RecipePath,
    out: Out,
    arms: AllArms = False,
    which: Which = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Calibrate the student, and fine-tune it with quantization in the loop.

    With --arms several ways are gone and measured on ONNX Runtime, side by side: a table, and a plot of top-1
    over latency.
    """
    if not arms and which is None:
        if as_json:
            raise UsageError("--json is for --arms: there is no result to print before")
        go(recipe, out, until="quantize", fresh=fresh, dry_run=dry_run)
        return
    if dry_run:
        raise UsageError(
            "--dry-run does not go with --arms", hint="edgekd quantize RECIPE --out RUN --dry-run"
        )
    with ScreenListener(quiet=as_json) as listener:
        found = quantize_arms(Request(recipe, which or "standard"), out, listener, fresh=fresh)
    if as_json:
        screen.show_json(json.loads(found.to_json()))
    else:
        _show(found, out)


def _show(found: Arms, out: Path) -> None:
    screen.show_table(HEADINGS, [cells(arm) for arm in found.arms], right=HEADINGS[1:-1])
    screen.show()
    for line in (*found.notes, *found.not_done):
        screen.note(f"note: {line}")
    for line in found.warnings:
        screen.warning(line)
    screen.show(f"{found.name}: {out / 'arms.md'}")
