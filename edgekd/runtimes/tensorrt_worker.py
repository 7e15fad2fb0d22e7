"""Parse a graph with TensorRT and build its engine, in a process of its own.

TensorRT is native code that reads a file of somebody's: a crash in it must not take edgekd along, and the
memory that it holds (about 200 MiB for a small graph) goes back when it ends. The host writes a job as JSON
to this program's standard input and finds the result as JSON in the file that the job names; see
edgekd/runtimes/tensorrt.py.

One code for three generations, by asking the module what it has:
- TensorRT for RTX builds ahead of time for a compute capability that it lists, with no GPU.
- TensorRT 10 and 11 build for the GPU at hand, and need it even to parse. TensorRT 10 wants the flags
  EXPLICIT_BATCH and STRONGLY_TYPED; 11 knows nothing else and has dropped them.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MAX_BATCH = 32
"""Largest batch of an engine whose graph has a free batch axis; it is tuned for 1."""
_NO_GPU = "TensorRT needs a GPU even to parse, and there is none here"
_MAJOR, _MINOR = 75, 76
"""CUdevice_attribute: compute capability, major and minor."""


def main() -> int:
    """Do the job on standard input: its `kind` is `build` or `network`."""
    job = json.load(sys.stdin)
    do = read_network if job.get("kind") == "network" else work
    result = do(importlib.import_module(job["module"]), job, gpu_sm())
    Path(job["result"]).write_text(json.dumps(result))
    return 0


def work(trt: Any, job: Mapping[str, Any], gpu: int | None) -> dict[str, Any]:
    """Parse and build; `trt` is one of the modules, `gpu` the compute capability of the GPU at hand.

    The job has `graph` (an ONNX file with its weights), `sm` (or null) and `engine` (its path, or null).
    The result has EngineRecord's status, note, messages and tool_version.
    """
    if _needs_gpu(trt, gpu):
        return _result(trt, "not-run", _NO_GPU, [])
    messages: list[str] = []
    builder, network, parser = _parser(trt, messages)
    if not parser.parse(Path(job["graph"]).read_bytes()):
        found = [_parser_error(error) for error in _errors(parser)]
        return _result(trt, "rejected", "the parser refused the graph", found or messages)
    why_not = _why_not_built(trt, job, gpu)
    if why_not:
        return _result(trt, "parsed", f"the parser took the graph; {why_not}", messages)
    return _build(trt, builder, network, job, messages)


def read_network(trt: Any, job: Mapping[str, Any], gpu: int | None) -> dict[str, Any]:
    """Parse, and say what the parser made of the graph: no engine is built, and no kernel chosen.

    The job has `graph`. Besides status, note, messages and tool_version the result has `refused`, a list of
    `{node, operator, why}`, `layers`, a list of `{name, kind, nodes, operation, inputs, outputs}` where
    `nodes` are the ONNX nodes that a layer stands for, and `tensors`, name to `{dtype, shape}`.
    """
    nothing: dict[str, Any] = {"refused": [], "layers": [], "tensors": {}}
    if _needs_gpu(trt, gpu):
        return {**_result(trt, "not-run", _NO_GPU, []), **nothing}
    messages: list[str] = []
    _builder, network, parser = _parser(trt, messages)
    if not parser.parse(Path(job["graph"]).read_bytes()):
        result = _result(trt, "rejected", "the parser refused the graph", messages)
        return {**result, **nothing, "refused": [_refusal(error) for error in _errors(parser)]}
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    return {
        **_result(trt, "parsed", "the parser took the graph", messages),
        **nothing,
        "layers": [_layer(trt, layer) for layer in layers],
        "tensors": {tensor.name: _tensor(tensor) for layer in layers for tensor in _tensors(layer)},
    }


def _layer(trt: Any, layer: Any) -> dict[str, Any]:
    kind = layer.type.name
    casts = {"ELEMENTWISE": "IElementWiseLayer", "ACTIVATION": "IActivationLayer"}
    if kind in casts:
        layer.__class__ = getattr(trt, casts[kind])  # how TensorRT's Python gives a layer its own attributes
    operation = {"ELEMENTWISE": "op", "ACTIVATION": "type"}.get(kind)
    # An activation layer's own `type`, such as RELU, hides the type of the layer.
    found = None if operation is None else getattr(layer, operation).name
    return {
        "name": layer.name,
        "kind": kind,
        "nodes": re.findall(r"\[ONNX Layer: ([^\]]*)\]", getattr(layer, "metadata", "") or ""),
        "operation": found,
        "inputs": [tensor.name for tensor in _inputs(layer)],
        "outputs": [layer.get_output(index).name for index in range(layer.num_outputs)],
    }


def _inputs(layer: Any) -> list[Any]:
    tensors = (layer.get_input(index) for index in range(layer.num_inputs))
    return [tensor for tensor in tensors if tensor is not None]


def _tensors(layer: Any) -> list[Any]:
    return [*_inputs(layer), *(layer.get_output(index) for index in range(layer.num_outputs))]


def _tensor(tensor: Any) -> dict[str, Any]:
    try:
        shape: list[int] | None = [int(size) for size in tensor.shape]
    except ValueError:  # the number of axes is not known
        shape = None
    return {"dtype": tensor.dtype.name, "shape": shape}


def _refusal(error: Any) -> dict[str, str]:
    return {"node": error.node_name(), "operator": error.node_operator(), "why": error.desc()}


def _needs_gpu(trt: Any, gpu: int | None) -> bool:
    return not hasattr(trt, "ComputeCapability") and gpu is None


def _parser(trt: Any, messages: list[str]) -> tuple[Any, Any, Any]:
    """A builder, an empty network and its parser; what TensorRT says goes to `messages`."""
    logger = _logger(trt, messages)
    builder = trt.Builder(logger)
    network = builder.create_network(_network_flags(trt))
    return builder, network, trt.OnnxParser(network, logger)


def _errors(parser: Any) -> list[Any]:
    return [parser.get_error(index) for index in range(parser.num_errors)]


def _why_not_built(trt: Any, job: Mapping[str, Any], gpu: int | None) -> str | None:
    sm = job["sm"]
    if job["engine"] is None:
        return "no engine was asked for"
    if hasattr(trt, "ComputeCapability"):
        known = [name for name in vars(trt.ComputeCapability) if name.startswith("SM")]
        if sm is not None and f"SM{sm}" not in known:
            return f"TensorRT for RTX does not build for SM {sm}, so the engine is built on the device"
    elif sm is not None and sm != gpu:
        return f"the GPU here is SM {gpu}, so the engine for SM {sm} is built on the device"
    return None


def _build(
    trt: Any, builder: Any, network: Any, job: Mapping[str, Any], messages: list[str]
) -> dict[str, Any]:
    config = builder.create_builder_config()
    problem = _set_profile(builder, network, config) or _set_target(trt, config, job["sm"])
    if problem:
        return _result(trt, "rejected", problem, messages)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return _result(
            trt, "rejected", "the parser took the graph, the builder made no engine of it", messages
        )
    Path(job["engine"]).write_bytes(memoryview(plan))
    return _result(trt, "built", f"an engine was built {_target_name(trt, job['sm'])}", messages)


def _set_profile(builder: Any, network: Any, config: Any) -> str | None:
    """Batches from 1 to MAX_BATCH, tuned for 1, where the batch axis is free; what is wrong, if anything."""
    profile = builder.create_optimization_profile()
    free = False
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        batch, *rest = tensor.shape
        if any(size < 0 for size in rest):
            return f"input '{tensor.name}' has a free axis besides the batch: {tuple(tensor.shape)}"
        if batch < 0:
            free = True
            profile.set_shape(tensor.name, (1, *rest), (1, *rest), (MAX_BATCH, *rest))
    if free and config.add_optimization_profile(profile) < 0:
        return "the builder refused the range of batch sizes"
    return None


def _set_target(trt: Any, config: Any, sm: int | None) -> str | None:
    if sm is None or not hasattr(trt, "ComputeCapability"):
        return None
    config.num_compute_capabilities = 1
    if not config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), 0):
        return f"the builder refused the compute capability SM {sm}"
    return None


def _target_name(trt: Any, sm: int | None) -> str:
    if not hasattr(trt, "ComputeCapability"):
        return "for the GPU at hand"
    return f"ahead of time for SM {sm}" if sm is not None else "ahead of time for every GPU that it supports"


def _network_flags(trt: Any) -> int:
    names = vars(getattr(trt, "NetworkDefinitionCreationFlag", object))
    flags = 0
    for name in ("EXPLICIT_BATCH", "STRONGLY_TYPED"):
        if name in names:
            flags |= 1 << int(getattr(trt.NetworkDefinitionCreationFlag, name))
    return flags


def _logger(trt: Any, messages: list[str]) -> Any:
    class Collector(trt.ILogger):  # type: ignore[misc]
        """Keeps warnings and errors; prints nothing."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Keep one message."""
            if severity <= trt.ILogger.WARNING and message not in messages:
                messages.append(message)

    return Collector()


def _parser_error(error: Any) -> str:
    return f"{error.node_name() or 'the graph'} ({error.node_operator() or 'no operator'}): {error.desc()}"


def _result(trt: Any, status: str, note: str, messages: list[str]) -> dict[str, Any]:
    return {"status": status, "note": note, "messages": messages, "tool_version": str(trt.__version__)}


def gpu_sm() -> int | None:
    """Compute capability of the first GPU, such as 89, as the driver says it; None without a GPU."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    ok = (
        driver.cuInit(0) == 0
        and driver.cuDeviceGet(ctypes.byref(device), 0) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(major), _MAJOR, device) == 0
        and driver.cuDeviceGetAttribute(ctypes.byref(minor), _MINOR, device) == 0
    )
    return 10 * major.value + minor.value if ok else None


if __name__ == "__main__":
    sys.exit(main())
