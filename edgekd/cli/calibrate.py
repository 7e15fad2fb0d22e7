"""`edgekd devices calibrate`: micro-benchmarks of a device, for the predictions about it. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.devices.device import Device
from edgekd.devices.open_device import open_device
from edgekd.documents.calibration import Calibration


def calibrate(
    device: Annotated[
        str, typer.Option(help="Where to measure: `local`, this machine, or an address.")
    ] = "local",
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")] = 1,
    output: Annotated[
        Path | None, typer.Option(help="The file to write; default: where `edgekd predict` looks.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over a calibration that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Measure what a device really does in a second, so that predictions about it get narrower.

    About a minute. It holds for this processor, version of the runtime, number of threads and kit alone.
    """
    with open_device(device, on_event=screen.note) as opened:
        run(opened, threads=threads, output=output, force=force, as_json=as_json)


def run(device: Device, *, threads: int, output: Path | None, force: bool, as_json: bool) -> None:
    """Calibrate a device and keep the result."""
    # onnx and onnxruntime, which the other commands of `edgekd devices` start without
    from edgekd.measure.prediction.calibrate import calibrate as measure
    from edgekd.measure.prediction.calibration import calibration_folder, check_free, keep, key_of, path_of

    path = output or path_of(key_of(device.facts("onnxruntime"), threads))
    check_free(path, force=force)
    found = measure(device, threads=threads, say=screen.note)
    keep(found, path, force=force)
    if as_json:
        screen.show_json(json.loads(found.to_json()))
    else:
        _show(found, path, used=path.parent == calibration_folder())


def _show(found: Calibration, path: Path, *, used: bool) -> None:
    rows = [(one.kind, one.number_type, f"{one.width:g}", f"{one.gops:.3g}") for one in found.rates]
    columns = ("class", "type", "width", "Gop/s")
    screen.show_table(columns, rows, right=columns[2:])
    screen.show()
    moved = [(f"{one.held_bytes / 2**20:.3g}", f"{one.gb_s:.3g}") for one in found.bandwidths]
    screen.show_table(("MiB held", "GB/s"), moved, right=("MiB held", "GB/s"))
    launches = [(one.kind, one.number_type, f"{one.launch_us:.2g}") for one in found.launches]
    screen.show()
    screen.show_table(("class", "type", "launch, µs"), launches, right=("launch, µs",))
    screen.show(f"\n{found.call_us:.2g} µs a call")
    for line in found.warnings:
        screen.warning(line)
    screen.show(f"kept in {path}" + ("; edgekd predict uses it" if used else ""))
