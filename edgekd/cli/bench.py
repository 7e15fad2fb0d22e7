"""`edgekd bench`: latency of a graph, a bundle or a run, on the runtime and the device. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.progress import ScreenListener
from edgekd.cli.stages import AsJson
from edgekd.cli.verdict import show_report
from edgekd.documents.measurement import Measurement, Percentile
from edgekd.documents.recipe import Measuring
from edgekd.documents.runtime import RuntimeName
from edgekd.documents.verdict import EXIT_CODES
from edgekd.errors import UsageError
from edgekd.pipeline.bench import bench as measure
from edgekd.pipeline.rejudge import measure_run
from edgekd.pipeline.run_folder import RUN_FILE
from edgekd.units import format_bytes, format_ms, format_percent

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_DEFAULTS = Measuring()


@app.command()
def bench(
    ctx: typer.Context,
    path: Annotated[Path, typer.Argument(help="An ONNX file, a bundle, or a run folder.")],
    device: Annotated[str, typer.Option(help="Where to measure: `local`, this machine.")] = "local",
    runtime: Annotated[
        RuntimeName | None, typer.Option(help="The runtime; default: the bundle's, or onnxruntime.")
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="What the device must be; default: the bundle's profile.")
    ] = None,
    inputs: Annotated[Path | None, typer.Option(help="A .npy of inputs, batch first.")] = None,
    processes: Annotated[int, typer.Option(min=2, help="Fresh processes.")] = _DEFAULTS.processes,
    threads: Annotated[
        int, typer.Option(min=1, max=1024, help="Threads of the runtime.")
    ] = _DEFAULTS.threads,
    min_time: Annotated[
        float, typer.Option(min=0.01, help="Least measured seconds in each process.")
    ] = _DEFAULTS.min_time_s,
    as_json: AsJson = False,
) -> None:
    """Measure latency, and for a bundle accuracy, on the runtime and the device.

    A run folder is measured as its recipe says, and the exit code is its verdict's.
    """
    if (path / RUN_FILE).is_file():
        _refuse_options(ctx)
        raise typer.Exit(_bench_run(path, as_json=as_json))
    measuring = Measuring(processes=processes, threads=threads, min_time_s=min_time)
    found = measure(path, device=device, runtime=runtime, profile=profile, inputs=inputs, measuring=measuring)
    if as_json:
        screen.show_json(json.loads(found.to_json()))
    else:
        _show(found)


def _refuse_options(ctx: typer.Context) -> None:
    """A run is measured as its recipe says."""
    given = [name for name in ctx.params if _is_given(ctx, name) and name not in ("path", "as_json")]
    if given:
        option = f"--{given[0].replace('_', '-')}"
        raise UsageError(f"{option} is for a graph or a bundle", hint="a run is measured as its recipe says")


def _is_given(ctx: typer.Context, name: str) -> bool:
    source = ctx.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _bench_run(run: Path, *, as_json: bool) -> int:
    with ScreenListener(quiet=as_json) as listener:
        report = measure_run(run, listener)
    if as_json:
        screen.show_json(json.loads(report.to_json()))
    else:
        show_report(report, run)
    return EXIT_CODES[report.verdict]


def _show(found: Measurement) -> None:
    (subject,) = found.subjects
    latency = subject.latency
    assert latency is not None
    rows = [
        ("p50", _percentile(latency.p50)),
        ("p90", _percentile(latency.p90)),
        ("p99", _percentile(latency.p99)),
        ("samples", f"{latency.samples} in {latency.processes} processes, {latency.threads} thread(s)"),
        ("load", format_ms(latency.load_ms)),
        ("first inference", format_ms(latency.first_ms)),
        ("cold start", "-" if latency.cold_start_ms is None else format_ms(latency.cold_start_ms)),
        ("size", format_bytes(subject.size_bytes)),
    ]
    if subject.accuracy is not None:
        rows.append(
            ("top-1", f"{format_percent(subject.accuracy.top1)} of {subject.accuracy.count} examples")
        )
    if subject.audit is not None:
        rows.append(("int8", f"{subject.audit.int8_ops} of {subject.audit.weighted_ops} weighted operators"))
    screen.show_table((subject.name, f"{found.runtime} on {found.facts.cpu or found.facts.machine}"), rows)
    for line in found.mismatches:
        screen.warning(f"this machine is not {found.profile}: {line}")
    for line in found.warnings:
        screen.warning(line)


def _percentile(percentile: Percentile | None) -> str:
    if percentile is None:
        return "too few samples"
    return f"{format_ms(percentile.value_ms)}, upper bound {format_ms(percentile.upper_ms)}"
