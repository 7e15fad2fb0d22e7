"""TensorRT on the host: whether its parser takes a graph, and whether an engine can be made of it here.

The work is done by edgekd/runtimes/tensorrt_worker.py in a process of its own. What was not done is said in
the record's note; nothing is skipped in silence.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import onnx

from edgekd.documents.engine import EngineRecord
from edgekd.errors import MissingError
from edgekd.files import sha256_bytes, sha256_file, write_bytes
from edgekd.runtimes.graph_file import load_graph
from edgekd.runtimes.tensorrt_network import ParsedNetwork, Refusal
from edgekd.runtimes.worker import start

TIMEOUT_S = 1800.0
"""Longest time that a build may take."""
_TOOLS = {"tensorrt_rtx": "tensorrt-rtx", "tensorrt": "tensorrt"}
"""Python modules with the names of their packages, the preferred one first: it needs no GPU."""
_WORKER = "edgekd.runtimes.tensorrt_worker"
_MISSING = "neither tensorrt-rtx nor tensorrt is installed"
_HINT = 'pip install "edgekd[tensorrt-rtx]"'
_INSTALL = f"{_MISSING}: {_HINT}"
_MAX_MESSAGES = 50


def parse_and_build(graph: Path, *, sm: int | None, engine: Path | None) -> EngineRecord:
    """Parse a graph, and write an engine of it for compute capability `sm` (such as 89) to `engine`.

    `sm` None asks for the GPU at hand (TensorRT) or for every GPU that is supported (TensorRT for RTX).
    `engine` None asks for no engine.

    Raises:
        BundleError: the file is no ONNX graph, or its external data is unsafe or missing.
        StorageError: the engine could not be written.
    """
    model = load_graph(graph)
    digest = sha256_file(graph)
    unsigned = _unsigned_quantizers(model)
    if unsigned:
        note = "it has uint8 codes, which TensorRT would read as int8 and so clip at half of their range"
        return EngineRecord(graph_sha256=digest, sm=sm, status="rejected", note=note, messages=unsigned)
    module = _installed()
    if module is None:
        return EngineRecord(graph_sha256=digest, sm=sm, status="not-run", note=_INSTALL)
    with tempfile.TemporaryDirectory(prefix="edgekd-tensorrt-") as folder:
        result, plan = _run_worker(module, model, sm, Path(folder), wants_engine=engine is not None)
    if plan is not None and engine is not None:
        write_bytes(engine, plan)
    return EngineRecord(
        graph_sha256=digest,
        sm=sm,
        status=result["status"],
        tool=_TOOLS[module],
        tool_version=result.get("tool_version"),
        engine_sha256=None if plan is None else sha256_bytes(plan),
        engine_bytes=None if plan is None else len(plan),
        note=result["note"],
        messages=tuple(result["messages"][:_MAX_MESSAGES]),
    )


def parse_network(model: onnx.ModelProto) -> ParsedNetwork:
    """What TensorRT's parser makes of a graph that was read; no engine is built.

    Raises:
        MissingError: neither TensorRT nor TensorRT for RTX can parse here.
    """
    module = _installed()
    if module is None:
        raise MissingError(_MISSING, hint=_HINT)
    with tempfile.TemporaryDirectory(prefix="edgekd-tensorrt-") as name:
        graph, result = Path(name) / "graph.onnx", Path(name) / "result.json"
        graph.write_bytes(model.SerializeToString())
        job = {"kind": "network", "module": module, "graph": str(graph), "result": str(result)}
        failure = start(_WORKER, job, timeout_s=TIMEOUT_S)
        if not result.is_file():  # a crash, or no end: that is an answer too
            refusal = Refusal(node="", operator="", why=f"the parser {'; '.join(failure)}")
            return ParsedNetwork(_TOOLS[module], "", (), {}, (refusal,))
        found = json.loads(result.read_text())
    if found["status"] == "not-run":
        raise MissingError(found["note"], hint=_HINT)
    return ParsedNetwork.of(_TOOLS[module], found)


def _installed() -> str | None:
    return next((name for name in _TOOLS if importlib.util.find_spec(name) is not None), None)


def _unsigned_quantizers(model: onnx.ModelProto) -> tuple[str, ...]:
    """Quantizers with uint8 codes: TensorRT takes those whose zero point is 0, with a warning.

    A QuantizeLinear with no zero point has uint8 codes too, unless it says otherwise.
    """
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    unsigned = onnx.TensorProto.UINT8
    found = []
    for node in model.graph.node:
        is_quantizer = node.op_type == "QuantizeLinear"
        if not is_quantizer and node.op_type != "DequantizeLinear":
            continue
        zero_point = node.input[2] if len(node.input) > 2 else ""
        given = next((entry.i for entry in node.attribute if entry.name == "output_dtype"), unsigned)
        codes = types.get(zero_point, unsigned) if zero_point else given
        if is_quantizer and codes == unsigned:
            found.append(f"{node.name or node.output[0]} (QuantizeLinear): uint8")
    return tuple(found)


def _run_worker(
    module: str, model: onnx.ModelProto, sm: int | None, folder: Path, *, wants_engine: bool
) -> tuple[dict[str, Any], bytes | None]:
    graph, engine, result = folder / "graph.onnx", folder / "engine", folder / "result.json"
    graph.write_bytes(model.SerializeToString())
    job = {
        "module": module,
        "graph": str(graph),
        "sm": sm,
        "engine": str(engine) if wants_engine else None,
        "result": str(result),
    }
    failure = start(_WORKER, job, timeout_s=TIMEOUT_S)
    if result.is_file():
        return json.loads(result.read_text()), engine.read_bytes() if engine.is_file() else None
    return {"status": "rejected", "note": f"{_TOOLS[module]} {failure[0]}", "messages": failure[1:]}, None
