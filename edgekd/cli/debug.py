"""`edgekd debug`: where the graphs of a network part from what was trained, and the likely cause."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.documents.divergence import Chain, Divergence
from edgekd.errors import UsageError
from edgekd.pipeline.debug.of_run import MARKDOWN, Wish, debug_run
from edgekd.pipeline.debug.render import (
    LINK_HEADINGS,
    layer_cells,
    layer_headings,
    lines_of,
    link_cells,
    shown_layers,
)
from edgekd.pipeline.debug.two_graphs import debug_graphs

app = typer.Typer(rich_markup_mode=None, add_completion=False)

PARTS = 1
"""Exit code where something parts, as of a check that failed."""


@app.command()
def debug(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder; or give --reference and --candidate.", metavar="RUN")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="An ONNX file: what the candidate was made from.")
    ] = None,
    candidate: Annotated[
        Path | None, typer.Option(help="An ONNX file or a bundle, of the same network.")
    ] = None,
    inputs: Annotated[Path | None, typer.Option(help="A .npy of examples for two files.")] = None,
    examples: Annotated[int, typer.Option(min=1, max=100_000, help="How many examples.")] = 64,
    row: Annotated[str | None, typer.Option(help="A row of the run's report; default: what ships.")] = None,
    dialect: Annotated[str | None, typer.Option(help="One dialect of the run; default: all.")] = None,
    graph: Annotated[
        Path | None,
        typer.Option(help="An ONNX file in the place of the run's own, such as one that came back."),
    ] = None,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="Search by removing quantizers, too: by the logits alone.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Find the first layer where a graph parts from what was trained, with the figures and the likely cause.

    The chain is fp32, the fake-quantized student, the graph node by node, its runtime. The exit code is 0
    where there is no divergence beyond quantization, 1 where there is.
    """
    if run is not None:
        _refuse({"--reference": reference, "--candidate": candidate, "--inputs": inputs}, "for two files")
        found = debug_run(run, Wish(row, dialect, graph, examples, bisect))
    else:
        _refuse({"--row": row, "--dialect": dialect, "--graph": graph}, "for a run folder")
        if reference is None or candidate is None:
            raise UsageError(
                "there is nothing to compare",
                hint="edgekd debug RUN, or edgekd debug --reference A.onnx --candidate B.onnx",
            )
        found = debug_graphs(reference, candidate, inputs=inputs, examples=examples, bisect=bisect)
    if as_json:
        screen.show_json(json.loads(found.to_json()))
    else:
        _show(found, None if run is None else run / MARKDOWN)
    raise typer.Exit(PARTS if found.parts else 0)


def _refuse(given: dict[str, object], why: str) -> None:
    option = next((name for name, value in given.items() if value is not None), None)
    if option is not None:
        raise UsageError(f"{option} is {why}", hint="edgekd debug --help")


def _show(found: Divergence, kept: Path | None) -> None:
    for chain in found.chains:
        _show_chain(chain)
    screen.show(f"{found.examples} examples ({found.inputs}), {found.runtime}, {found.machine}")
    if kept is not None:
        screen.note(f"note: {kept}")


def _show_chain(chain: Chain) -> None:
    screen.show_table(layer_headings(chain), [layer_cells(row, chain) for row in shown_layers(chain)])
    screen.show()
    screen.show_table(LINK_HEADINGS, [link_cells(link) for link in chain.links])
    screen.show()
    headline, *more = lines_of(chain)
    screen.show(headline)
    for line in more:
        screen.show(f"  {line}")
    screen.show()
