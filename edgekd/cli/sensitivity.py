"""`edgekd sensitivity`: which layers the student cannot have quantized, and a scheme that spares them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.cli.progress import ScreenListener
from edgekd.cli.stages import Out, RecipePath
from edgekd.documents.sensitivity import Cost, Sensitivity, Worth
from edgekd.pipeline.quantize.find import find_sensitivity
from edgekd.units import format_percent

app = typer.Typer(rich_markup_mode=None, add_completion=False)

Force = Annotated[bool, typer.Option("--force", help="Write over a scheme.toml that was edited.")]
_SHOWN = 3


@app.command()
def sensitivity(recipe: RecipePath, out: Out, force: Force = False, as_json: AsJson = False) -> None:
    """Find which layers the student cannot have quantized, and the smallest set of them to spare.

    Every layer's gain is measured on the validation split, what sparing it costs on ONNX Runtime here. The
    scheme is written to OUT/scheme.toml, to be read, edited and taken up by a recipe
    (quantization.scheme_file). A scheme.toml that was edited stays, and the new one goes to scheme.new.toml.
    """
    with ScreenListener(quiet=as_json) as listener:
        result = find_sensitivity(recipe, out, listener, force=force)
    if as_json:
        screen.show_json(json.loads(result.document.to_json()))
    else:
        _show(result.document, result.scheme)
    if result.scheme.name != "scheme.toml":
        screen.warning(
            f"{out / 'scheme.toml'} was edited and stays as it is; the new scheme is in {result.scheme} "
            "(--force writes over yours)"
        )


def _show(found: Sensitivity, scheme: Path) -> None:
    screen.show_table(
        ("layer", "gain (nats)", "top-1", found.layers[0].cost.what if found.layers else "cost", "precision"),
        [
            (one.name, f"{one.gain:+.5f}", format_percent(one.top1), _cost(one.cost), one.precision)
            for one in found.layers
        ],
        right=("gain (nats)", "top-1", "latency", "weights"),
    )
    screen.show(f"\neach layer alone with more precision, on {found.examples} validation examples")
    _show_tensors(found)
    screen.show(f"\ntop-1 on {found.found.count} validation examples")
    screen.show_table(
        ("", "top-1", "drop", "divergence (nats)", "cost"),
        [
            ("fp32", format_percent(found.fp32_top1), "", "", _cost(found.all_cost)),
            ("before", *_worth(found.start), "1"),
            ("found", *_worth(found.found), _cost(found.cost)),
        ],
        right=("top-1", "drop", "divergence (nats)", "cost"),
    )
    for line in found.notes:
        screen.note(f"note: {line}")
    screen.show(f"\n{found.name}: {scheme}")


def _show_tensors(found: Sensitivity) -> None:
    worst = sorted(found.tensors, key=lambda one: -one.gain)[:_SHOWN]
    for one in worst:
        if one.gain > 0 and one.layers:
            around = " and ".join(one.layers)
            screen.show(
                f"the activation behind {one.name} in float: {one.gain:+.5f} nats; around it: {around}"
            )


def _worth(worth: Worth) -> tuple[str, str, str]:
    return format_percent(worth.top1), f"{worth.drop_pt:+.2f} pt", f"{worth.kl:.5f}"


def _cost(cost: Cost) -> str:
    if cost.interval is None:
        return f"{cost.ratio:.3f}"
    return f"{cost.ratio:.3f} ({cost.interval.lower:.3f} to {cost.interval.upper:.3f})"
