"""`edgekd bench`: latency of graphs, bundles or a run, on runtimes and devices. Needs no torch."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.bench_progress import BenchListener
from edgekd.cli.options import AsJson
from edgekd.cli.progress import ScreenListener
from edgekd.cli.verdict import show_report
from edgekd.documents.recipe import Measuring
from edgekd.documents.verdict import EXIT_CODES
from edgekd.errors import StorageError, UsageError
from edgekd.measure.phases import SUSTAINED_S
from edgekd.pipeline.bench import render
from edgekd.pipeline.bench.folder import no_plots, open_folder, write_folder
from edgekd.pipeline.bench.plan import Plan, parse_place, parse_places, parse_runtime, read_graphs
from edgekd.pipeline.bench.run import Benched, bench, compare
from edgekd.pipeline.rejudge import measure_run
from edgekd.pipeline.run_folder import RUN_FILE

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_DEFAULTS = Measuring()
LEAST_PACED = 20
"""Fewer inferences at a fixed rate carry no median with a bound."""


@app.command(name="bench")
def bench_(
    ctx: typer.Context,
    paths: Annotated[list[Path], typer.Argument(help="ONNX files, bundles, or one run folder.")],
    device: Annotated[
        list[str] | None,
        typer.Option(
            help="[PROFILE=]ADDRESS: `local`, ssh://[USER@]HOST[:PORT] or adb:SERIAL; several at once.",
            show_default="local",
        ),
    ] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            help="A runtime, such as onnxruntime-cuda; several in turn.", show_default="the graph's"
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(help="What the device must be, `local` for anything.", show_default="the bundle's"),
    ] = None,
    inputs: Annotated[
        Path | None, typer.Option(help="A .npy of inputs, batch first; a .npz for several inputs.")
    ] = None,
    processes: Annotated[int, typer.Option(min=2, help="Fresh processes.")] = _DEFAULTS.processes,
    threads: Annotated[str, typer.Option(help="Threads of the runtime, such as 1,2,4.")] = "1",
    batch: Annotated[
        str | None,
        typer.Option(help="Examples in one inference, such as 1,8.", show_default="the graph's, or 1"),
    ] = None,
    min_time: Annotated[
        float, typer.Option(min=0.01, help="Least measured seconds in each process.")
    ] = _DEFAULTS.min_time_s,
    sustained: Annotated[
        float | None,
        typer.Option(
            min=3, help=f"Also back to back for so many seconds; {SUSTAINED_S:g} or more tell of heat."
        ),
    ] = None,
    rate: Annotated[
        float | None, typer.Option(min=0.1, help="Also at a fixed rate, as a camera: inferences in a second.")
    ] = None,
    rate_seconds: Annotated[float, typer.Option(min=1, help="Time at that rate.")] = 60.0,
    interleave: Annotated[
        bool, typer.Option("--interleave", help="Compare each graph with the first, taking turns.")
    ] = False,
    option: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE for the runtime's session; several.")
    ] = None,
    accept_mismatch: Annotated[
        bool, typer.Option("--accept-mismatch", help="Measure although the device is not the profile's.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Keep raw samples, tables and plots here, and go on from there.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what --out holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure latency, memory and energy, and for a bundle accuracy, on the runtime and the device.

    A run folder is measured as its recipe says, and the exit code is its verdict's. Else the exit code is 0,
    5 where the device was throttled or taken away meanwhile, 3 or 4 where something could not be measured.
    """
    if len(paths) == 1 and (paths[0] / RUN_FILE).is_file():
        _refuse_options(ctx)
        raise typer.Exit(_bench_run(paths[0], device or (), as_json=as_json))
    if rate is not None and rate * rate_seconds < LEAST_PACED:
        raise UsageError(
            f"--rate {rate:g} for {rate_seconds:g} s is fewer than {LEAST_PACED} inferences",
            hint=f"--rate-seconds {math.ceil(LEAST_PACED / rate)} or more",
        )
    if interleave:
        _refuse_with_interleave(ctx)
    with tempfile.TemporaryDirectory(prefix="edgekd-bench-") as scratch:
        plan = Plan(
            graphs=read_graphs(paths, inputs, Path(scratch)),
            places=parse_places(device or ["local"], profile),
            runtimes=tuple(dict.fromkeys(map(parse_runtime, runtime or ()))),
            threads=_numbers("--threads", threads),
            batches=(None,) if batch is None else _numbers("--batch", batch),
            measuring=_DEFAULTS.model_copy(update={"processes": processes, "min_time_s": min_time}),
            session_options=dict(map(_pair, option or ())),
            sustained_s=sustained,
            rate_hz=rate,
            rate_s=rate_seconds,
            accept_mismatch=accept_mismatch,
        )
        raise typer.Exit(
            _bench(plan, Path(scratch), out, interleave=interleave, fresh=fresh, as_json=as_json)
        )


def _bench(
    plan: Plan, scratch: Path, out: Path | None, *, interleave: bool, fresh: bool, as_json: bool
) -> int:
    """Measure, or read what is there; show it; the exit code."""
    done = None if out is None else open_folder(out, plan, interleave=interleave, fresh=fresh)
    if done is not None:
        screen.note(f"{out}: done before; --fresh measures anew")
        return _show(done, as_json=as_json)
    with BenchListener(quiet=as_json) as listener:
        found = (compare if interleave else bench)(plan, scratch, listener, out=out)
    unwritten = None if out is None else _write(out, found)
    code = _show(found, as_json=as_json)  # what was measured is shown even if it cannot be kept
    if unwritten is not None:
        raise unwritten
    return code


def _write(out: Path, found: Benched) -> StorageError | None:
    try:
        write_folder(out, found)
    except StorageError as error:
        return error
    if (line := no_plots(found)) is not None:
        screen.note(line)
    return None


def _show(found: Benched, *, as_json: bool) -> int:
    document = found.document
    if as_json:
        screen.show_json(json.loads(document.to_json()))
    else:
        _show_tables(found)
    for what, why in render.errors(document):
        screen.error(why if len(document.results) == 1 else f"{what}: {why}")
    if code := max((one.exit_code for one in document.results), default=0):
        return code
    rows = [row.measurement for row in document.rows if row.measurement is not None]
    invalid = any(row.invalid for row in rows) or any(pair.invalid for pair in document.comparisons)
    return EXIT_CODES["inconclusive"] if invalid else EXIT_CODES["pass"]


def _show_tables(found: Benched) -> None:
    document = found.document
    if any(row.measurement for row in document.rows):
        screen.show_table(*render.measured_table(document.rows))
    if any(pair.comparison for pair in document.comparisons):
        screen.show_table(*render.compared_table(document.comparisons))
    for title, lines in render.details(document, found.courses):
        screen.show(f"\n{title}" if title else "")
        screen.show_table(("what", "value"), lines)
    for line in render.problems(document):
        screen.warning(line)


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """`1,2,4` as numbers.

    Raises:
        UsageError: they are none.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and 0 < int(word) <= 1024 for word in words):
        raise UsageError(f"{name} takes numbers from 1 to 1024, such as 1,2,4; found '{text}'")
    return tuple(dict.fromkeys(map(int, words)))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise UsageError(f"--option takes KEY=VALUE, found '{text}'")
    return key, value


def _refuse_options(ctx: typer.Context) -> None:
    """A run is measured as its recipe says."""
    given = [
        name for name in ctx.params if _is_given(ctx, name) and name not in ("paths", "device", "as_json")
    ]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} is for a graph or a bundle", hint="a run is measured as its recipe says")


def _refuse_with_interleave(ctx: typer.Context) -> None:
    """A comparison has its own processes, and goes on until it is decided."""
    for name in ("processes", "min_time"):
        if _is_given(ctx, name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"{option} is not for --interleave", hint="it measures until it is decided")


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _bench_run(run: Path, devices: Sequence[str], *, as_json: bool) -> int:
    places = [parse_place(text, None) for text in devices]
    if any(place.profile is None for place in places):
        raise UsageError(
            "a run's targets have profiles: which one is at that address?",
            where=run,
            hint="--device PROFILE=ADDRESS, such as raspberry-pi-5-8gb=ssh://pi@kitchen",
        )
    with ScreenListener(quiet=as_json) as listener:
        report = measure_run(run, listener, {str(place.profile): place.address for place in places})
    if as_json:
        screen.show_json(json.loads(report.to_json()))
    else:
        show_report(report, run)
    return EXIT_CODES[report.verdict]
