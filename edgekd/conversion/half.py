"""The fp32 graph in float16: weights and arithmetic in half precision, inputs and outputs as they were.

Every float32 constant becomes float16, every operator then computes in float16, and a Cast stands behind
each float32 input and before each float32 output. So TensorRT, whose networks are strongly typed, runs it in
float16, and the file has half the size. ONNX Runtime's CPU provider has few float16 kernels: it puts casts
around the others, computes in float32 and is no faster than with the fp32 graph.

float16 reaches 65504, and below 2^-14 loses digits until 2^-24, its least value. A weight beyond it is
refused: it would become infinite. Limits (of Clip, Min, Max, and masks in Where) beyond it are held at 65504,
which limits float16 values just as well. Only running the graph tells whether an activation is beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.conversion.graph_view import GraphView, label, views
from edgekd.errors import ConversionError

LARGEST = 65504.0
"""Largest float16."""
_SMALLEST_NORMAL = 2.0**-14
_LIMITERS = frozenset({"Clip", "Min", "Max", "Where"})
_FLOAT32_INPUTS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that ONNX wants in float32 whatever the operator computes in."""
_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})


def to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a float32 graph that computes in float16; opset and signature stay.

    Raises:
        ConversionError: a weight is beyond float16, the graph is quantized or has an If, a Loop or a Scan, or
            one of its operators has no float16 form.
    """
    _check_convertible(model)
    half = onnx.ModelProto()
    half.CopyFrom(model)
    graph = half.graph
    _keep_float32_inputs(graph)
    kept = {name for node in graph.node for name in _float32_inputs(node)}
    _convert_constants(graph, kept)
    for info in graph.value_info:
        _retype(info)
    _cast_edges(graph)
    _check_types(half)
    return half


def fp16_notes(model: onnx.ModelProto) -> tuple[str, ...]:
    """What float16 takes from the constants of a float32 graph, a line for each that loses something."""
    view = GraphView.of(model.graph)
    notes = (_note(name, value) for name, value in _float_constants(view))
    return tuple(note for note in notes if note)


def _note(name: str, value: np.ndarray) -> str:
    magnitude = np.abs(value[(value != 0) & np.isfinite(value)])
    lost = int((magnitude.astype(np.float16) == 0).sum())
    blurred = int((magnitude < _SMALLEST_NORMAL).sum()) - lost
    parts = [
        *([f"{lost} become 0"] if lost else []),
        *([f"{blurred} lose digits (below 2^-14)"] if blurred else []),
    ]
    return f"'{name}': of {value.size} values {' and '.join(parts)}" if parts else ""


def _check_convertible(model: onnx.ModelProto) -> None:
    if len(list(views(model))) > 1 or model.functions:
        raise ConversionError("has an If, a Loop, a Scan or a function", where="fp32 graph")
    found = [label(node) for node in model.graph.node if node.op_type in _QUANTIZERS]
    if found:
        raise ConversionError(
            f"is quantized, first at '{found[0]}'; float16 would move its scales",
            where="fp32 graph",
            hint="give the fp32 graph of the network",
        )
    view = GraphView.of(model.graph)
    problems = [line for name, value in _float_constants(view) if (line := _beyond(view, name, value))]
    if problems:
        raise ConversionError(
            "\n  ".join([f"{len(problems)} constants are beyond float16 (largest: 65504)", *problems]),
            where="fp32 graph",
            hint="fine-tune the network with weight decay, or keep it in fp32",
        )


def _beyond(view: GraphView, name: str, value: np.ndarray) -> str:
    """What is wrong with a constant that float16 cannot hold; nothing for one that it can, or for a limit."""
    largest = float(np.abs(value[np.isfinite(value)]).max(initial=0.0))
    if _in_range(largest) or _is_limit(view, name):
        return ""
    return f"'{name}' reaches {largest:.6g}"


def _in_range(largest: float) -> bool:
    with np.errstate(over="ignore"):
        return bool(np.isfinite(np.float16(largest)))


def _is_limit(view: GraphView, name: str) -> bool:
    readers = view.consumers.get(name, [])
    return bool(readers) and all(reader.op_type in _LIMITERS for reader in readers)


def _float_constants(view: GraphView) -> Iterator[tuple[str, np.ndarray]]:
    """Name and value of every float32 constant that is to become float16."""
    kept = {name for node in view.graph.node for name in _float32_inputs(node)}
    constants = [node.output[0] for node in view.graph.node if node.op_type == "Constant"]
    for name in (*view.initializers, *constants):
        value = view.constant(name)
        if value is not None and value.dtype == np.float32 and name not in kept:
            yield name, value


def _float32_inputs(node: onnx.NodeProto) -> list[str]:
    places = _FLOAT32_INPUTS.get(node.op_type, ())
    return [node.input[place] for place in places if place < len(node.input) and node.input[place]]


def _keep_float32_inputs(graph: onnx.GraphProto) -> None:
    """Give operators that want a float32 constant one of their own, where others read it too."""
    view = GraphView.of(graph)
    for node in graph.node:
        for place in _FLOAT32_INPUTS.get(node.op_type, ()):
            name = node.input[place] if place < len(node.input) else ""
            value = view.constant(name) if name else None
            if value is not None and value.dtype == np.float32 and len(view.consumers[name]) > 1:
                node.input[place] = f"{node.output[0]}/float32_{place}"
                graph.initializer.append(numpy_helper.from_array(value, node.input[place]))


def _convert_constants(graph: onnx.GraphProto, kept: set[str]) -> None:
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT and tensor.name not in kept:
            tensor.CopyFrom(_half(tensor, tensor.name))
    for info in graph.input:
        if any(tensor.name == info.name for tensor in graph.initializer):
            _retype(info)
    for node in graph.node:
        if not kept.intersection(node.output):
            _convert_attributes(node)


def _half(tensor: onnx.TensorProto, name: str) -> onnx.TensorProto:
    value = numpy_helper.to_array(tensor)
    held = np.where(np.isfinite(value), value.clip(-LARGEST, LARGEST), value)
    return numpy_helper.from_array(held.astype(np.float16), name)


def _convert_attributes(node: onnx.NodeProto) -> None:
    """Tensors in attributes, and the types that a node is told to make."""
    for entry in node.attribute:
        if node.op_type == "Constant" and entry.name in ("value_float", "value_floats"):
            value = np.array(entry.f if entry.name == "value_float" else entry.floats, np.float32)
            entry.CopyFrom(helper.make_attribute("value", _half(numpy_helper.from_array(value), "")))
        elif entry.type == onnx.AttributeProto.TENSOR and entry.t.data_type == TensorProto.FLOAT:
            entry.t.CopyFrom(_half(entry.t, entry.t.name))
        elif entry.name in ("to", "dtype") and entry.i == TensorProto.FLOAT:
            entry.i = TensorProto.FLOAT16


def _retype(info: onnx.ValueInfoProto) -> None:
    tensor = info.type.tensor_type
    if tensor.elem_type == TensorProto.FLOAT:
        tensor.elem_type = TensorProto.FLOAT16


def _cast_edges(graph: onnx.GraphProto) -> None:
    """Casts behind the float32 inputs and before the float32 outputs; the names of both stay."""
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [
        info.name
        for info in graph.input
        if info.type.tensor_type.elem_type == TensorProto.FLOAT and info.name not in constants
    ]
    outputs = [info.name for info in graph.output if info.type.tensor_type.elem_type == TensorProto.FLOAT]
    renamed = {name: f"{name}/float16" for name in (*inputs, *outputs)}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]
        node.output[:] = [renamed.get(name, name) for name in node.output]
    nodes = [
        *(_cast(name, renamed[name], TensorProto.FLOAT16) for name in inputs),
        *graph.node,
        *(_cast(renamed[name], name, TensorProto.FLOAT) for name in outputs),
    ]
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def _cast(source: str, target: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=to)


def _check_types(half: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(half, full_check=True)
    except (
        onnx.checker.ValidationError,
        onnx.shape_inference.InferenceError,
        ValueError,
        RuntimeError,
    ) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise ConversionError(
            f"an operator has no float16 form: {lines[0] if lines else error}", where="fp16 graph"
        ) from None
