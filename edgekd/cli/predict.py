"""`edgekd predict`: how long graphs might take on devices that did not run them. Needs no torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from edgekd.cli import screen
from edgekd.cli.options import AsJson
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import LOCAL, list_profiles
from edgekd.documents.prediction import PredictedOperator, Prediction
from edgekd.measure.prediction.calibration import find_calibration
from edgekd.measure.prediction.predict import predict as estimate
from edgekd.measure.prediction.predict import read_fused
from edgekd.measure.prediction.target import Target, machine_target, profile_target, read_clock_mhz
from edgekd.units import format_percent

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SHOWN = 3
_MIB = 2**20


@app.command()
def predict(
    graphs: Annotated[list[Path], typer.Argument(help="ONNX files or bundles; several are ranked.")],
    profile: Annotated[
        list[str] | None,
        typer.Option(help="A device, NAME or NAME@OPERATING_POINT; may be given again. Default: local."),
    ] = None,
    threads: Annotated[int, typer.Option(min=1, max=1024, help="Threads of the runtime.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Estimate latency from the graph and the device's profile, as an interval.

    Nothing is measured: an estimate ranks graphs, and no gate takes it. `edgekd devices calibrate` narrows
    the interval for this machine, `edgekd bench` measures.
    """
    targets = [_target(name, threads) for name in dict.fromkeys(profile or [LOCAL])]
    paths = [graph / "model.onnx" if graph.is_dir() else graph for graph in graphs]
    found = [_predictions(path, targets) for path in paths]
    by_target = [sorted(column, key=lambda one: one.mid_ms) for column in zip(*found, strict=True)]
    if as_json:
        screen.show_json([json.loads(one.to_json()) for column in by_target for one in column])
    else:
        _show(by_target, ranked=len(graphs) > 1)


def _target(name: str, threads: int) -> Target:
    if name != LOCAL:
        return profile_target(name, threads)
    facts = LocalDevice().facts("onnxruntime")
    return machine_target(
        facts,
        threads,
        calibration=find_calibration(facts, threads),
        profiles=[one.profile for one in list_profiles() if one.profile is not None],
        clock_mhz=read_clock_mhz(),
    )


def _predictions(path: Path, targets: Sequence[Target]) -> list[Prediction]:
    fused = {
        runtime: read_fused(path, runtime) for runtime in dict.fromkeys(target.runtime for target in targets)
    }
    return [estimate(fused[target.runtime], target) for target in targets]


def _show(by_target: Sequence[Sequence[Prediction]], *, ranked: bool) -> None:
    columns = ["graph", "device", "runtime", "predicted", "MMACs", "int8"]
    rows = [
        [*([str(rank)] if ranked else []), *_row(one)]
        for column in by_target
        for rank, one in enumerate(column, 1)
    ]
    screen.show_table([*(["rank"] if ranked else []), *columns], rows, right=("rank", "MMACs", "int8"))
    for column in by_target:
        for one in column:
            _show_operators(one)
    _show_notes([one for column in by_target for one in column])


def _row(one: Prediction) -> list[str]:
    macs = sum(operator.macs for operator in one.operators if operator.number_type == "int8")
    share = format_percent(macs / one.macs, 0) if one.macs else "-"
    threads = f"{one.threads} thread{'s' if one.threads > 1 else ''}"
    return [one.graph, _device(one), f"{one.runtime}, {threads}", one.text, f"{one.macs / 1e6:.1f}", share]


def _device(one: Prediction) -> str:
    return one.profile if one.operating_point is None else f"{one.profile}@{one.operating_point}"


def _show_operators(one: Prediction) -> None:
    """The operators that the most of a prediction is made of."""
    costly = sorted(one.operators, key=lambda operator: -operator.mid_ms)[:_SHOWN]
    total = sum(operator.mid_ms for operator in one.operators)
    screen.show(f"\nmost of it, {one.graph} on {_device(one)}:")
    rows = [_operator(operator, total) for operator in costly]
    screen.show_table(("operator", "class", "type", "share", "bound by", "MMACs", "MiB"), rows, right=_RIGHT)


_RIGHT = ("share", "MMACs", "MiB")


def _operator(one: PredictedOperator, total_ms: float) -> list[str]:
    share = format_percent(one.mid_ms / total_ms, 0)
    moved = (one.read_bytes + one.written_bytes) / _MIB
    return [one.name, one.kind, one.number_type, share, one.bound, f"{one.macs / 1e6:.2f}", f"{moved:.2f}"]


def _show_notes(found: Sequence[Prediction]) -> None:
    screen.show()
    for one in found:
        if one.missing_ops:
            listed = ", ".join(f"{count} {name}" for name, count in one.missing_ops.items())
            screen.show(
                f"{one.graph}: the work of {listed} is not known, not counted, and widens the interval"
            )
    for line in dict.fromkeys(_basis(one) for one in found):
        screen.show(line)
    for line in dict.fromkeys(line for one in found for line in one.notes):
        screen.show(f"note: {line}")
    screen.show("predictions rank, they never pass a gate; edgekd bench measures")


def _basis(one: Prediction) -> str:
    """What the estimates for a device rest on."""
    if one.calibration is not None:
        return f"{_device(one)}: calibrated on {one.calibration}"
    return f"{_device(one)}: peaks of a profile times generic efficiencies"
