"""`edgekd audit`: which weighted operators of a graph really run in int8 here, and why the others do not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.stages import AsJson
from edgekd.conversion.audit import audit_graph
from edgekd.documents.audit import Audit

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def audit(
    graph: Annotated[Path, typer.Argument(help="An ONNX file, or a bundle; edgekd need not have made it.")],
    as_json: AsJson = False,
) -> None:
    """Say which weighted operators really run in int8 on ONNX Runtime here, and why the others do not."""
    found = audit_graph(graph / "model.onnx" if graph.is_dir() else graph)
    if as_json:
        screen.show_json(json.loads(found.to_json()))
    else:
        _show(found)


def _show(found: Audit) -> None:
    rows = [(one.name, one.op_type, one.runs_as, "int8" if one.int8 else "float") for one in found.operators]
    screen.show_table(("operator", "type", "runs as", "in"), rows)
    screen.show()
    for one in found.operators:
        if not one.int8:
            screen.show(f"{one.name}: {one.cause}")
            if one.advice:
                screen.show(f"  try: {one.advice}")
    share = f"{found.int8_ops} of {found.weighted_ops} weighted operators run in int8"
    screen.show(f"{share} ({found.runtime} {found.runtime_version}, {found.machine})")
