"""ONNX Runtime on the host: one session, its options, and what the machine's kernels depend on.

Latency is measured by the kit, not here. This is for the audit and for parity, and it gives the runtime bytes
only, so that no graph can send it to a file of its own choice.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state

from edgekd.errors import ConversionError

ISA_FEATURES = (
    *("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8"),
    *("neon", "asimd", "asimddp", "i8mm", "sve"),
)
"""Instruction-set features that decide which int8 kernels run, as /proc/cpuinfo spells them."""
_FATAL = 4
# ONNX Runtime's exceptions have no common parent of their own, and each release adds some.
_ERRORS: tuple[type[Exception], ...] = (
    RuntimeError,
    *(
        kind
        for kind in vars(onnxruntime_pybind11_state).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
)


def version() -> str:
    """Version of ONNX Runtime."""
    return str(onnxruntime.__version__)


def known_operators() -> frozenset[tuple[str, str]]:
    """Domain and type of every operator that ONNX Runtime has a definition of; empty if it does not tell."""
    list_all = getattr(onnxruntime_pybind11_state, "get_all_operator_schema", None)
    return frozenset((schema.domain, schema.name) for schema in list_all()) if list_all else frozenset()


def open_session(
    model: onnx.ModelProto,
    *,
    threads: int = 1,
    options: Mapping[str, str] | None = None,
    optimized: Path | None = None,
    as_written: bool = False,
) -> onnxruntime.InferenceSession:
    """A session on the CPU provider with every optimization on.

    `as_written` turns them off: each operator in float, each Q and DQ where it stands. So a graph for another
    runtime is held against the student here, for ONNX Runtime's own rewrites round biases to int32.
    `model` holds its weights itself, as read_graph leaves it. `options` are configuration entries of the
    session. The graph that really runs is written to `optimized`, if given.

    Raises:
        ConversionError: ONNX Runtime refuses the graph.
    """
    settings = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    settings.graph_optimization_level = levels.ORT_DISABLE_ALL if as_written else levels.ORT_ENABLE_ALL
    settings.intra_op_num_threads = threads
    settings.log_severity_level = _FATAL
    for key, value in (options or {}).items():
        settings.add_session_config_entry(key, value)
    if optimized is not None:
        settings.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
    except _ERRORS as error:
        raise ConversionError(f"ONNX Runtime cannot load the graph: {one_line(error)}") from None


def loads_as_written(model: onnx.ModelProto) -> bool:
    """Whether ONNX Runtime loads a graph with all its optimizations off."""
    try:
        open_session(model, as_written=True)
    except ConversionError:
        return False
    return True


def run_batches(session: onnxruntime.InferenceSession, x: np.ndarray, batch_size: int = 64) -> np.ndarray:
    """First output (N, K) of a session for inputs (N, ...) float32, `batch_size` examples at a time.

    Raises:
        ConversionError: ONNX Runtime cannot run the graph on these inputs.
    """
    name = session.get_inputs()[0].name
    batches = [x[start : start + batch_size] for start in range(0, len(x), batch_size)]
    try:
        return np.concatenate([session.run(None, {name: batch})[0] for batch in batches])
    except _ERRORS as error:
        raise ConversionError(f"ONNX Runtime cannot run the graph: {one_line(error)}") from None


def run_tensors(
    session: onnxruntime.InferenceSession, feeds: Mapping[str, np.ndarray], names: Sequence[str]
) -> dict[str, np.ndarray]:
    """Outputs of a session by name, for one batch.

    Raises:
        ConversionError: ONNX Runtime cannot run the graph on these inputs.
    """
    try:
        return dict(zip(names, session.run(list(names), dict(feeds)), strict=True))
    except _ERRORS as error:
        raise ConversionError(f"ONNX Runtime cannot run the graph: {one_line(error)}") from None


def machine_isa(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Architecture and int8 features of this machine, such as `x86_64 avx2 avx512f avx512_vnni`."""
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    lines = [line for line in text.splitlines() if line.split(":")[0].strip() in ("flags", "Features")]
    flags = set(lines[0].split()) if lines else set()
    return " ".join([platform.machine(), *(feature for feature in ISA_FEATURES if feature in flags)])


def one_line(error: Exception) -> str:
    """An error of ONNX Runtime as one line, without the place in its source that it starts with."""
    text = " ".join(str(error).split())
    return re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
