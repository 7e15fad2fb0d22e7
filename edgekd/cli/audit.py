"""`edgekd audit`: which weighted operators of a graph run in int8, why not the others, and at what cost."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Literal

import typer

from edgekd import __version__
from edgekd.cli import screen
from edgekd.cli.audit_text import show_audit
from edgekd.cli.options import AsJson
from edgekd.documents.audit import Audit
from edgekd.documents.causes import CAUSES
from edgekd.documents.runtime import TargetRuntime
from edgekd.documents.sarif import to_sarif
from edgekd.documents.verdict import EXIT_CODES
from edgekd.errors import UsageError
from edgekd.files import write_text
from edgekd.pipeline.audit import Request
from edgekd.pipeline.audit import audit as examine

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def audit(
    graph: Annotated[
        Path | None, typer.Argument(help="An ONNX file, or a bundle; edgekd need not have made it.")
    ] = None,
    runtime: Annotated[TargetRuntime, typer.Option(help="The runtime that is asked.")] = "onnxruntime",
    cost: Annotated[
        bool, typer.Option(help="Run the graph: latency beside the same graph in float, and a profile.")
    ] = True,
    inputs: Annotated[
        Path | None, typer.Option(help="A .npy for the graph's input, or a .npz; default: made up.")
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")] = 1,
    min_int8: Annotated[
        float | None,
        typer.Option(
            min=0.0, max=1.0, help="Least share of weighted operators in int8; below it: exit code 1."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Write JSON or SARIF to this file, and the text to standard output.")
    ] = None,
    as_json: AsJson = False,
    as_sarif: Annotated[bool, typer.Option("--sarif", help="SARIF 2.1.0 in the place of text.")] = False,
    causes: Annotated[
        bool, typer.Option("--causes", help="List every cause that an audit can name.")
    ] = False,
) -> None:
    """Say which weighted operators run in int8, why the others do not, and what that costs.

    Exit codes: 0 the audit is done; 1 fewer operators than --min-int8 asks for run in int8.
    """
    if causes:
        _show_causes(as_json=as_json)
        return
    if graph is None:
        raise UsageError("there is no graph to audit", hint="edgekd audit GRAPH.onnx")
    form = _form(output, as_json=as_json, as_sarif=as_sarif)
    path = graph / "model.onnx" if graph.is_dir() else graph
    found = examine(path, Request(runtime=runtime, cost=cost, inputs=inputs, threads=threads))
    if form != "text":
        made = json.loads(found.to_json()) if form == "json" else _sarif(found, path)
        if output is None:
            screen.show_json(made)
        else:
            write_text(output, json.dumps(made, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    if form == "text" or output is not None:
        show_audit(found)
    if min_int8 is not None:
        _gate(found, min_int8)


def _form(output: Path | None, *, as_json: bool, as_sarif: bool) -> Literal["text", "json", "sarif"]:
    """What is written: as asked for, else by the file's name."""
    if as_json and as_sarif:
        raise UsageError("--json and --sarif are two forms of one thing", hint="choose one of them")
    if as_json or as_sarif:
        return "json" if as_json else "sarif"
    if output is None:
        return "text"
    if output.suffix not in (".json", ".sarif"):
        raise UsageError("is neither .json nor .sarif", where=output, hint="add --json or --sarif")
    return "json" if output.suffix == ".json" else "sarif"


def _sarif(found: Audit, path: Path) -> dict[str, object]:
    return to_sarif(found, path, __version__, root=_root())


def _root() -> Path:
    """The checkout that CI works in, else the current folder."""
    return Path(os.environ.get("GITHUB_WORKSPACE") or ".")


def _gate(found: Audit, limit: float) -> None:
    """Exit code 1 where too few operators run in int8."""
    share = found.int8_ops / found.weighted_ops if found.weighted_ops else 0.0
    if share < limit:
        counts = f"{found.int8_ops} of {found.weighted_ops} weighted operators run in int8"
        screen.note(f"fail: {counts}, {share:.3g} of them; --min-int8 asks for {limit:g}")
        raise typer.Exit(EXIT_CODES["fail"])


def _show_causes(*, as_json: bool) -> None:
    if as_json:
        rows = [
            {
                "id": one.id,
                "level": one.level,
                "runtimes": one.runtimes,
                "cause": one.title,
                "advice": one.advice,
            }
            for one in CAUSES.values()
        ]
        screen.show_json(rows)
        return
    for one in CAUSES.values():
        screen.show(f"{one.id} ({one.level}; {', '.join(one.runtimes)})")
        screen.show(f"  {one.title}")
        if one.advice:
            screen.show(f"  try: {one.advice}")
