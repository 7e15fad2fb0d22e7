"""Measure any ONNX graph or bundle on a device, with no recipe and no torch."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from edgekd.bundle import MANIFEST, read_bundle
from edgekd.conversion.audit import audit_graph
from edgekd.conversion.check_graph import read_graph
from edgekd.conversion.specs import session_options
from edgekd.devices.local import LocalDevice
from edgekd.devices.profiles import LOCAL, load_profile, mismatches
from edgekd.documents.measurement import Accuracy, Measurement, Subject
from edgekd.documents.profile import Profile
from edgekd.documents.recipe import Measuring
from edgekd.documents.runtime import RuntimeName
from edgekd.errors import BundleError, DeviceError, UsageError
from edgekd.files import sha256_bytes, sha256_file
from edgekd.measure.accuracy import accuracy, measure_outputs
from edgekd.measure.latency import measure_latency

RANDOM_BATCHES = 16
MAX_BATCH_ELEMENTS = 2**24
"""Of a batch that is made up: 16 of them in float64 take 2 GiB, and a stranger's graph chooses the shape."""


@dataclass(frozen=True)
class Candidate:
    """A graph to measure."""

    name: str
    graph: Path
    inputs: Path
    labels: Path | None
    batch_size: int
    profile: str
    note: str
    runtime: RuntimeName = "onnxruntime"


def bench(
    path: Path,
    *,
    device: str = "local",
    runtime: RuntimeName | None = None,
    profile: str | None = None,
    inputs: Path | None = None,
    measuring: Measuring | None = None,
    confidence: float = 0.95,
) -> Measurement:
    """Latency of a bundle or graph on this machine; for a bundle also accuracy on its evaluation examples.

    `profile` is what the machine is expected to be; `local` takes it as it is. `runtime` None: the bundle's,
    or ONNX Runtime for a graph.

    Raises:
        DeviceError: the device is not `local`.
        BundleError: the bundle or graph is incomplete, altered or unsafe.
        UsageError: the graph's inputs cannot be made up and none were given.
    """
    if device != "local":
        raise DeviceError(
            f"there is no device '{device}'", hint="this version measures on `local`, this machine"
        )
    with _candidate(path, inputs) as candidate:
        if runtime not in (None, candidate.runtime) and candidate.labels is not None:
            raise UsageError(
                f"the bundle is for {candidate.runtime}, not for {runtime}",
                where=path,
                hint="leave out --runtime",
            )
        name = profile or candidate.profile
        expected = None if name == LOCAL else load_profile(name)
        return _measure(
            candidate, runtime or candidate.runtime, expected, measuring or Measuring(), confidence
        )


def _measure(
    candidate: Candidate,
    runtime: RuntimeName,
    expected: Profile | None,
    measuring: Measuring,
    confidence: float,
) -> Measurement:
    result = measure_latency(
        LocalDevice(),
        {candidate.name: candidate.graph},
        runtime=runtime,
        inputs=candidate.inputs,
        measuring=measuring,
        confidence=confidence,
        batch_size=candidate.batch_size,
        session_options=session_options(runtime),
    )
    scored, digest = _score(candidate, runtime, measuring, confidence)
    subject = Subject(
        name=candidate.name,
        graph_sha256=sha256_file(candidate.graph),
        size_bytes=candidate.graph.stat().st_size,
        accuracy=scored,
        predictions_sha256=digest,
        latency=result.latencies[candidate.name],
        audit=audit_graph(candidate.graph) if runtime == "onnxruntime" else None,
    )
    return Measurement(
        profile=LOCAL if expected is None else expected.id,
        runtime=runtime,
        facts=result.facts,
        conditions=result.conditions,
        subjects=(subject,),
        mismatches=() if expected is None else mismatches(expected, result.facts),
        warnings=(*((candidate.note,) if candidate.note else ()), *result.warnings),
    )


@contextmanager
def _candidate(path: Path, inputs: Path | None) -> Iterator[Candidate]:
    if path.is_dir() or path.name == MANIFEST:
        yield _from_bundle(path if path.is_dir() else path.parent, inputs)
        return
    graph_input = _only_input(read_graph(path), path)
    batch_size = max(1, graph_input.shape.dim[0].dim_value) if graph_input.shape.dim else 1
    if inputs is not None:
        yield Candidate(path.name, path, _existing(inputs, graph_input), None, batch_size, LOCAL, "")
        return
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / "inputs.npy"
        np.save(made, _random_inputs(graph_input, batch_size, path))
        note = "the inputs are random (standard normal): latency is measured, accuracy is not"
        yield Candidate(path.name, path, made, None, batch_size, LOCAL, note)


def _from_bundle(folder: Path, inputs: Path | None) -> Candidate:
    manifest = read_bundle(folder)
    # Read here first: a runtime would follow external data to wherever it lies.
    graph_input = _only_input(read_graph(folder / manifest.graph), folder)
    evaluation = manifest.evaluation
    return Candidate(
        name=manifest.name,
        graph=folder / manifest.graph,
        inputs=folder / evaluation.inputs if inputs is None else _existing(inputs, graph_input),
        labels=folder / evaluation.labels if inputs is None else None,
        batch_size=1,
        profile=manifest.profile,
        note="",
        runtime=manifest.runtime,
    )


def _existing(inputs: Path, graph_input: onnx.TypeProto.Tensor) -> Path:
    if not inputs.is_file():
        raise UsageError(
            "there is no such file of inputs", where=inputs, hint="--inputs takes a .npy, batch first"
        )
    try:
        x_NX = np.load(inputs, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"is no .npy of numbers: {error}", where=inputs) from None
    if not isinstance(x_NX, np.ndarray) or x_NX.ndim < 1 or len(x_NX) == 0:
        raise UsageError("holds no inputs", where=inputs, hint="--inputs takes a .npy, batch first")
    _check_fit(x_NX, graph_input, inputs)
    return inputs


def _check_fit(x_NX: np.ndarray, tensor: onnx.TypeProto.Tensor, inputs: Path) -> None:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)
    shape = [dim.dim_value for dim in tensor.shape.dim]
    fits = x_NX.ndim == len(shape) and all(
        size <= 0 or size == found for size, found in zip(shape[1:], x_NX.shape[1:], strict=True)
    )
    if not fits or x_NX.dtype != dtype:
        sizes = ", ".join(str(size) if size > 0 else "?" for size in shape[1:])
        raise UsageError(
            f"holds {x_NX.dtype} {x_NX.shape}; the graph takes {dtype} (N, {sizes})", where=inputs
        )


def _score(
    candidate: Candidate, runtime: RuntimeName, measuring: Measuring, confidence: float
) -> tuple[Accuracy | None, str | None]:
    if candidate.labels is None:
        return None, None
    logits = measure_outputs(
        LocalDevice(), candidate.graph, candidate.inputs, runtime=runtime, threads=measuring.threads
    )
    try:  # mapped, a header that promises more than the file holds allocates nothing
        labels = np.load(candidate.labels, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise BundleError(f"cannot be read: {error}", where=candidate.labels) from None
    if not isinstance(labels, np.ndarray) or labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise BundleError("holds no row of integer labels", where=candidate.labels)
    if len(labels) != len(logits):
        raise BundleError("inputs and labels differ in number", where=candidate.labels)
    digest = sha256_bytes(logits.argmax(axis=1).astype(np.int64).tobytes())
    return accuracy(logits, labels, confidence=confidence), digest


def _only_input(graph: onnx.ModelProto, path: Path) -> onnx.TypeProto.Tensor:
    """The type of the graph's one input; a graph with a fixed batch is fed batches of that size."""
    constants = {initializer.name for initializer in graph.graph.initializer}
    wanted = [value for value in graph.graph.input if value.name not in constants]
    if len(wanted) != 1:
        raise UsageError(
            f"the graph has {len(wanted)} inputs; bench feeds one",
            where=path,
            hint="fold the others into constants",
        )
    return wanted[0].type.tensor_type


def _random_inputs(graph_input: onnx.TypeProto.Tensor, batch_size: int, path: Path) -> np.ndarray:
    """Standard normal examples in the shape and dtype of the graph's input."""
    shape = [dim.dim_value for dim in graph_input.shape.dim]
    if not shape or not all(size > 0 for size in shape[1:]):
        raise UsageError(
            "the shape of an example is not fixed in the graph",
            where=path,
            hint="give one with --inputs X.npy",
        )
    if batch_size * math.prod(shape[1:]) > MAX_BATCH_ELEMENTS:
        raise UsageError(
            f"a batch of shape {(batch_size, *shape[1:])} is too large to make up",
            where=path,
            hint="give one with --inputs X.npy",
        )
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph_input.elem_type)
    values = np.random.default_rng(0).standard_normal((RANDOM_BATCHES * batch_size, *shape[1:]))
    return values.astype(dtype)
