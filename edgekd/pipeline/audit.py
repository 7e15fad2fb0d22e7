"""The whole audit of a graph: what runs in int8 and why not, and what that costs, beside its own fp32.

The same graph without quantizers is the float graph that it is held against: both are run by the kit in
turns, in fresh processes, and both are profiled in turns. Needs no torch.
"""

from __future__ import annotations

import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgekd.conversion.any_graph import read_any_graph
from edgekd.conversion.audit import TOO_LARGE, Examined, examine, inlined, static_audit
from edgekd.conversion.auditing.costs import FloatTwin, with_costs
from edgekd.conversion.auditing.feed import Feed, given_feed, random_feed, with_defaults
from edgekd.conversion.auditing.optimized import numbered, with_names
from edgekd.conversion.auditing.tensorrt import audit_tensorrt
from edgekd.conversion.float_graph import float_graph
from edgekd.devices.local import LocalDevice
from edgekd.documents.audit import Audit, Speed
from edgekd.documents.recipe import Measuring
from edgekd.documents.runtime import TargetRuntime
from edgekd.errors import ConversionError, EdgekdError, MeasurementError, UsageError
from edgekd.measure.latency import measure_latency
from edgekd.runtimes.profiling import profile

MEASURING = Measuring(processes=3, warmup_s=0.1, max_warmup_s=1.0, min_time_s=0.2, min_samples=40)
"""Enough for a ratio: an audit is no benchmark."""
CONFIDENCE = 0.975
"""One-sided, so that the interval of the ratio holds with 95 %."""
_TIMEOUT_S = 120.0
_GRAPH, _FLOAT = "graph", "float"
_INPUTS = "--inputs takes a .npy, batch first, or for several inputs a .npz"


@dataclass(frozen=True)
class Request:
    """What is asked of an audit.

    Attributes:
        runtime: the runtime.
        cost: whether to run the graph: latency against its float form, and a profile.
        inputs: arrays of the user's for the graph's inputs; None makes them up.
        threads: of the runtime.
    """

    runtime: TargetRuntime = "onnxruntime"
    cost: bool = True
    inputs: Path | None = None
    threads: int = 1


def audit(path: Path, request: Request | None = None) -> Audit:
    """Audit any ONNX file.

    Raises:
        BundleError: the file is no valid ONNX graph, or its external data is unsafe or missing.
        UsageError: the arrays that were given are not what the graph takes.
        MissingError: the runtime is not installed.
    """
    request = request or Request()
    found = read_any_graph(path)
    model = inlined(found.model)
    if request.runtime == "tensorrt":
        return audit_tensorrt(model, path, whole=found.whole)
    if not found.whole:
        return static_audit(model, path, TOO_LARGE)
    feed = None if request.inputs is None else _given(model, request.inputs)
    try:
        examined = examine(model, path, threads=request.threads)
    except ConversionError as error:
        return static_audit(model, path, error.message)
    if not request.cost:
        return examined.audit
    return _with_cost(examined, request.threads, feed)


def _with_cost(examined: Examined, threads: int, feed: Feed | None) -> Audit:
    """The audit with latency against the graph's float form and with the profile, or why they are missing."""
    try:
        feed = feed or random_feed(examined.model)
    except UsageError as error:
        what = f"{error.message}; {error.hint}" if error.hint else error.message
        return _unmeasured(examined.audit, f"neither latency nor a profile: {what}")
    twin, why_not = _twin(examined)
    missing = [f"no latency against fp32: {why_not}"] if why_not else []
    found = examined.audit
    graphs = {_GRAPH: with_defaults(numbered(examined.model), feed)}
    if twin is not None:
        graphs[_FLOAT] = with_defaults(twin.to_profile(), feed)
    try:
        times = profile(graphs, feed.first_batch, threads=threads)
        found = with_costs(examined, times[_GRAPH], twin, times.get(_FLOAT))
        if twin is not None:
            found = found.model_copy(update={"speed": _speed(graphs, feed, threads)})
    except EdgekdError as error:
        what = "no latency" if found.profile else "no profile" if why_not else "neither latency nor a profile"
        missing.append(f"{what}: {error.message}")
    found = _unmeasured(found, *missing)
    return found.model_copy(update={"notes": (*found.notes, *_notes_on(feed, twin))})


def _unmeasured(found: Audit, *lines: str) -> Audit:
    return found.model_copy(update={"not_measured": (*found.not_measured, *lines)})


def _notes_on(feed: Feed, twin: FloatTwin | None) -> Iterator[str]:
    if feed.random:
        yield "measured with made-up inputs: time seldom depends on their values"
    tensors = () if twin is None else twin.model.graph.initializer
    if any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in tensors):
        yield "its float form is in half precision, which ONNX Runtime computes in float32 between casts"


def _twin(examined: Examined) -> tuple[FloatTwin | None, str | None]:
    """The graph without quantizers, or why there is none."""
    if examined.audit.quantization == "none":
        return None, "the graph is not quantized"
    try:
        return FloatTwin.of(float_graph(numbered(examined.model))), None
    except ConversionError as error:
        return None, f"the graph cannot be written in float: {with_names(error.message, examined.model)}"


def _speed(graphs: Mapping[str, onnx.ModelProto], feed: Feed, threads: int) -> Speed:
    """Both graphs in turns, in fresh processes."""
    with tempfile.TemporaryDirectory(prefix="edgekd-audit-") as name:
        folder = Path(name)
        for stem, model in graphs.items():
            (folder / f"{stem}.onnx").write_bytes(model.SerializeToString())
        np.save(folder / "inputs.npy", feed.batches)
        result = measure_latency(
            LocalDevice(),
            {stem: folder / f"{stem}.onnx" for stem in graphs},
            runtime="onnxruntime",
            inputs=folder / "inputs.npy",
            measuring=MEASURING.model_copy(update={"threads": threads}),
            confidence=CONFIDENCE,
            reference=_FLOAT,
            batch_size=feed.batch_size,
            cold_starts=0,
            timeout_s=_TIMEOUT_S,
        )
    (ratio,) = result.ratios
    latency, float_latency = result.latencies[_GRAPH], result.latencies[_FLOAT]
    if latency.p50 is None or float_latency.p50 is None:
        raise MeasurementError("too few samples for a median")
    return Speed(
        ratio=ratio.value,
        interval=ratio.interval,
        latency_ms=latency.p50.value_ms,
        float_latency_ms=float_latency.p50.value_ms,
        processes=latency.processes,
        samples=latency.samples,
    )


def _given(model: onnx.ModelProto, path: Path) -> Feed:
    """The user's arrays: of a .npy, or by name of a .npz."""
    if not path.is_file():
        raise UsageError("there is no such file of inputs", where=path, hint=_INPUTS)
    try:
        with path.open("rb") as file:
            held = np.load(file, allow_pickle=False)
            arrays = {"": held} if isinstance(held, np.ndarray) else dict(held)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UsageError(f"is no .npy or .npz of numbers: {error}", where=path, hint=_INPUTS) from None
    try:
        return given_feed(model, arrays)
    except UsageError as error:
        raise UsageError(error.message, where=path, hint=error.hint) from None
