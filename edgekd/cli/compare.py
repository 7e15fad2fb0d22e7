"""`edgekd compare`: several methods from the same teacher, with the same budget and seeds, side by side."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.cli.progress import ScreenListener
from edgekd.cli.stages import DryRun, Fresh, Out, RecipePath
from edgekd.documents.comparison import Comparison
from edgekd.pipeline.compare.render import cells, headings
from edgekd.pipeline.compare.run import Request, compare, missing
from edgekd.units import format_percent

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Terms = Annotated[
    str,
    typer.Option(
        "--terms",
        help="Arms, separated by commas: methods (edgekd methods list), with options (kd:temperature=2), "
        "combined (kd+nd), or `recipe`, its own objective. ce and random-teacher are always there.",
    ),
]
Seeds = Annotated[int, typer.Option("--seeds", min=1, max=1000, help="Trainings of each arm.")]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Epochs of every student.")]
StopAfter = Annotated[
    float | None,
    typer.Option("--stop-after", min=1, help="Seconds after which to stop, at the end of an epoch."),
]


@app.command("compare")
def compare_(
    recipe: RecipePath,
    out: Out,
    terms: Terms = "kd",
    seeds: Seeds = 3,
    epochs: Epochs = None,
    stop_after: StopAfter = None,
    fresh: Fresh = False,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Train a student by several methods, from one teacher and with the same seeds, and compare them.

    The epoch is chosen on the validation split and judged on the test split; each arm is put beside plain
    cross-entropy, seed by seed, with an interval. What is finished is not done again; with another arm, only
    that arm is trained.
    """
    request = Request(recipe, terms, seeds, epochs)
    with ScreenListener(quiet=as_json) as listener:
        if dry_run:
            _show_missing(missing(request, out, listener, fresh=fresh), fresh=fresh)
            return
        comparison = compare(request, out, listener, stop_after=stop_after, fresh=fresh)
    if as_json:
        screen.show_json(json.loads(comparison.to_json()))
    else:
        _show(comparison, out)


def _show_missing(names: list[str], *, fresh: bool) -> None:
    if fresh:
        screen.show("every stage would be made anew")
    elif names:
        screen.show("\n".join(["these stages would be made:", *names]))
    else:
        screen.show("nothing would be done: every stage is finished")


def _show(comparison: Comparison, out: Path) -> None:
    columns = headings(comparison)
    if comparison.arms:
        screen.show_table(columns, [cells(comparison, arm) for arm in comparison.arms], right=columns[1:])
    if comparison.teacher_top1 is not None:
        screen.show(f"teacher         {format_percent(comparison.teacher_top1)}")
    for flag in comparison.flags:
        screen.warning(flag)
    for note in comparison.notes if comparison.arms else ():
        screen.note(f"note: {note}")
    if comparison.finished:
        screen.show(f"\n{comparison.name}: {out / 'comparison.md'}")
    else:
        screen.show("\nunfinished: only arms that are whole are shown; the same command goes on from here")
