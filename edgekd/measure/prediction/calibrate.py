"""Calibrate: micro-benchmarks on a device, by the same path as every other latency.

All graphs take turns in the same fresh processes. Of what a chain takes, the time of the empty chain and the
launch of its operators are no work and are taken off; what is left gives the rate. Memory is measured at
three sizes, from what a core's cache holds to what the caches of a board do not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgekd.devices.device import Device
from edgekd.documents.calibration import Bandwidth, Calibration, Launch, MicroBenchmark, Rate
from edgekd.documents.measurement import Latency
from edgekd.documents.prediction import NumberType, OperatorClass
from edgekd.documents.recipe import Measuring
from edgekd.measure.latency import LatencyResult, measure_latency
from edgekd.measure.prediction.calibration import key_of
from edgekd.measure.prediction.micro_graphs import ROW, TINY, Build, Size, benchmarks, empty, moves

CONFIDENCE = 0.95
MEASURING = Measuring(processes=3, warmup_s=0.05, max_warmup_s=0.2, min_time_s=0.1, min_samples=40)
FEW = MEASURING.model_copy(update={"processes": 2, "min_samples": 20})
"""For the large ones, of which each sample takes milliseconds."""
MOVED = (ROW, 2**19, 2**22)
"""Floats of an operator that only moves them: 128 KiB, 2 MiB and 16 MiB."""
_TINY_LENGTH, _MOVE_LENGTH = 32, 6
_TIMEOUT_S = 120.0
_LEAST_SHARE = 0.02
"""Least part of a chain's time that counts as its work: the difference of two noisy figures may be zero."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class _Times:
    """Seconds of each graph by name, and what was measured."""

    seconds: Mapping[str, float]
    rows: tuple[MicroBenchmark, ...]
    result: LatencyResult


def calibrate(
    device: Device, *, threads: int = 1, runtime: str = "onnxruntime", say: Say = lambda line: None
) -> Calibration:
    """Measure a device.

    Args:
        device: where the graphs run.
        threads: of the runtime.
        runtime: that runs them.
        say: told what is measured, a line each.

    Raises:
        MissingError: the runtime is not installed there.
        DeviceError, MeasurementError: as Device.run.
    """
    key = key_of(device.facts(runtime), threads, runtime)
    sizes = list(benchmarks())
    graphs = {size.name: build(size.length) for size, build in sizes}
    bases = {size.base: _base(size) for size, _ in sizes}
    tiny = {"nothing": moves(TINY, 0), "moves": moves(TINY, _TINY_LENGTH)}
    say(f"{len(graphs) + len(bases) + 2} small graphs, side by side in {MEASURING.processes} processes")
    small = _measure(device, {**tiny, **bases, **graphs}, ROW, MEASURING, threads, runtime)
    call = small.seconds["nothing"]
    move = max(0.0, small.seconds["moves"] - call) / _TINY_LENGTH
    launches = _launches(sizes, small.seconds)
    large = []
    for elements in MOVED:
        say(f"memory: {elements * 4 // 1024} KiB")
        pair = {f"{name} {elements} floats": moves(elements, count) for name, count in _MOVING.items()}
        large.append(_measure(device, pair, elements, FEW, threads, runtime))
    return Calibration(
        key=key,
        facts=small.result.facts,
        call_us=call * 1e6,
        move_us=move * 1e6,
        launches=tuple(
            Launch(kind=kind, number_type=number_type, launch_us=seconds * 1e6)
            for (kind, number_type), seconds in launches.items()
        ),
        rates=tuple(
            _rate(size, small.seconds, launches[size.kind, size.number_type])
            for size, _ in sizes
            if not size.tiny
        ),
        bandwidths=tuple(
            _bandwidth(elements, times.seconds, move) for elements, times in zip(MOVED, large, strict=True)
        ),
        benchmarks=(*small.rows, *(row for times in large for row in times.rows)),
        warnings=_about_the_machine(small.result),
    )


_MOVING = {"nothing of": 0, "moving": _MOVE_LENGTH}


def _base(size: Size) -> onnx.ModelProto:
    elements, number_type = size.base.split()
    kind: NumberType = "int8" if number_type == "int8" else "fp32"
    return empty(int(elements), kind)


def _measure(
    device: Device,
    graphs: Mapping[str, onnx.ModelProto],
    elements: int,
    measuring: Measuring,
    threads: int,
    runtime: str,
) -> _Times:
    """Latency of graphs that take one row of floats."""
    with tempfile.TemporaryDirectory(prefix="edgekd-calibrate-") as name:
        folder = Path(name)
        paths = {title: folder / f"{number}.onnx" for number, title in enumerate(graphs)}
        for title, model in graphs.items():
            paths[title].write_bytes(model.SerializeToString())
        x_NL = np.random.default_rng(0).standard_normal((2, elements), dtype=np.float32)
        np.save(folder / "inputs.npy", x_NL)
        result = measure_latency(
            device,
            paths,
            runtime=runtime,
            inputs=folder / "inputs.npy",
            measuring=measuring.model_copy(update={"threads": threads}),
            confidence=CONFIDENCE,
            cold_starts=0,
            timeout_s=_TIMEOUT_S,
        )
    rows = tuple(_row(title, latency) for title, latency in result.latencies.items())
    return _Times({row.name: row.value_ms / 1e3 for row in rows}, rows, result)


def _row(title: str, latency: Latency) -> MicroBenchmark:
    """The latency that comes out the same on a busy machine; the median where there is none."""
    found = latency.quiet or latency.p50
    return MicroBenchmark(
        name=title, value_ms=found.value_ms, lower_ms=found.lower_ms, upper_ms=found.upper_ms
    )


def work_s(chain_s: float, base_s: float, length: int, launch_s: float) -> float:
    """Seconds of one operator's work: what a chain takes more than an empty one, less the launches."""
    rest = (chain_s - base_s) / length - launch_s
    return max(rest, _LEAST_SHARE * chain_s / length)


def _launches(
    sizes: Sequence[tuple[Size, Build]], seconds: Mapping[str, float]
) -> dict[tuple[OperatorClass, NumberType], float]:
    """Seconds of an operator of each class that has next to no work."""
    return {
        (size.kind, size.number_type): max(0.0, seconds[size.name] - seconds[size.base]) / size.length
        for size, _ in sizes
        if size.tiny
    }


def _rate(size: Size, seconds: Mapping[str, float], launch_s: float) -> Rate:
    taken = work_s(seconds[size.name], seconds[size.base], size.length, launch_s)
    gops = size.operations / taken / 1e9
    return Rate(kind=size.kind, number_type=size.number_type, width=size.width, gops=gops)


def _bandwidth(elements: int, seconds: Mapping[str, float], launch_s: float) -> Bandwidth:
    """Each operator of the chain reads and writes `elements` floats, in place."""
    moving, nothing = (seconds[f"{name} {elements} floats"] for name in ("moving", "nothing of"))
    held = 4 * elements
    moved = 2 * held
    return Bandwidth(held_bytes=held, gb_s=moved / work_s(moving, nothing, _MOVE_LENGTH, launch_s) / 1e9)


def _about_the_machine(result: LatencyResult) -> tuple[str, ...]:
    """What a reader of the calibration should know; what concerns one small graph is left out."""
    titles = tuple(f"{title}:" for title in result.latencies)
    return tuple(line for line in result.warnings if not line.startswith(titles))
