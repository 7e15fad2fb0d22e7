"""Questions that the causes ask of a graph: what feeds an operator, what reads it, in which codes.

None of them opens a weight: a graph whose weights were left out can be asked too.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from edgekd.conversion.graph_view import GraphView, attribute

LAYOUT = frozenset({"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"})
"""Operators that only move the elements of a tensor."""
QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
UNFOLDED_ACTIVATIONS = frozenset(
    {
        *(
            "HardSwish",
            "Swish",
            "Sigmoid",
            "HardSigmoid",
            "Tanh",
            "Gelu",
            "FastGelu",
            "BiasGelu",
            "QuickGelu",
        ),
        *("Mish", "Softplus", "Softsign", "Erf", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu"),
    }
)
"""Activation functions that no convolution takes into its int8 kernel."""


def weight_of(view: GraphView, node: onnx.NodeProto) -> str:
    """The operand of a convolution or matrix product that is constant, its weight; else the second."""
    first, second = node.input[:2]
    return str(first if view.is_constant(first) and not view.is_constant(second) else second)


def input_of(view: GraphView, node: onnx.NodeProto) -> str:
    """The operand of a convolution or matrix product that is no weight."""
    first, second = node.input[:2]
    return str(second if weight_of(view, node) == first else first)


def bias_of(node: onnx.NodeProto) -> str | None:
    """The bias of a Conv, ConvTranspose or Gemm."""
    has_bias = node.op_type in ("Conv", "ConvTranspose", "Gemm") and len(node.input) > 2
    return node.input[2] or None if has_bias else None


def dequantizer_of(view: GraphView, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear that opens a tensor, seen through what only moves its elements."""
    source = view.producer(name)
    while source is not None and source.op_type in LAYOUT:
        source = view.producer(source.input[0])
    return source if source is not None and source.op_type == "DequantizeLinear" else None


def element_type(view: GraphView, name: str) -> str | None:
    """Element type of a constant or of a graph's input, such as int8; None for what is computed."""
    for scope in _scopes(view):
        if name in scope.initializers:
            return _name_of(scope.initializers[name].data_type)
        if name in scope.producers:
            value = scope.constant(name)
            return None if value is None else value.dtype.name
        for entry in scope.graph.input:
            if entry.name == name:
                return _name_of(entry.type.tensor_type.elem_type)
    return None


def codes_of(view: GraphView, node: onnx.NodeProto) -> str | None:
    """Element type of the codes that a QuantizeLinear makes or a DequantizeLinear opens; None if unknown."""
    if len(node.input) > 2 and node.input[2]:
        return element_type(view, node.input[2])
    if node.op_type == "QuantizeLinear":
        return _name_of(attribute(node, "output_dtype", 0) or onnx.TensorProto.UINT8)
    source = view.producer(node.input[0])
    if source is not None and source.op_type == "QuantizeLinear":
        return codes_of(view, source)
    return element_type(view, node.input[0])


def code_type(view: GraphView, name: str) -> str:
    """Element type of the codes behind a tensor, such as int8; float where there are none."""
    node = dequantizer_of(view, name)
    return "float" if node is None else codes_of(view, node) or "unknown"


def zero_points(view: GraphView, node: onnx.NodeProto) -> np.ndarray | None:
    """Zero points of a quantizer, 0 where they are left out; None where they are computed."""
    if len(node.input) > 2 and node.input[2]:
        return view.constant(node.input[2])
    codes = codes_of(view, node)
    return np.zeros(1, np.dtype(codes) if codes in ("int8", "int16", "uint16", "int32") else np.uint8)


def code_range(view: GraphView, quantizer: onnx.NodeProto) -> tuple[float, float]:
    """Least and greatest value that a quantizer can say; without end where that is not known."""
    scale, zero_point = view.constant(quantizer.input[1]), zero_points(view, quantizer)
    unknown = scale is None or zero_point is None or not scale.size or not zero_point.size
    if unknown or not np.issubdtype(zero_point.dtype, np.integer):  # type: ignore[union-attr]
        return -np.inf, np.inf
    assert scale is not None
    assert zero_point is not None
    limits, step, zero = np.iinfo(zero_point.dtype), float(scale.flat[0]), int(zero_point.flat[0])
    return step * (limits.min - zero), step * (limits.max - zero)


def clip_bound(view: GraphView, clip: onnx.NodeProto, index: int) -> float:
    """Lower (index 1) or upper (2) bound of a Clip: an input from opset 11 on, before that an attribute."""
    if len(clip.input) > index and clip.input[index]:
        given = view.constant(clip.input[index])
        if given is not None and given.size:
            return float(given.flat[0])
    for entry in clip.attribute:
        if entry.name == ("min" if index == 1 else "max"):
            return float(entry.f)
    return -np.inf if index == 1 else np.inf


def only_reader(view: GraphView, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The node that alone reads a node's output; None where others read it, or it leaves the graph."""
    readers = view.consumers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 and not view.is_output(node.output[0]) else None


def last_of(view: GraphView, node: onnx.NodeProto) -> onnx.NodeProto:
    """The Relu or Clip that alone reads an operator, else the operator."""
    after = only_reader(view, node)
    return after if after is not None and after.op_type in ("Relu", "Clip") else node


def readers_of(view: GraphView, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Readers of an operator's output, or of the Relu or Clip that is its only reader."""
    return view.consumers.get(last_of(view, node).output[0], [])


def is_depthwise(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a convolution has one input channel in each of several groups."""
    shape = weight_shape(view, node)
    return attribute(node, "group", 1) > 1 and shape is not None and shape[1:2] == (1,)


def weight_shape(view: GraphView, node: onnx.NodeProto) -> tuple[int, ...] | None:
    """Shape of an operator's weight as it is stored; None where it is computed."""
    name = weight_of(view, node) if len(node.input) < 4 else node.input[3]
    opened = dequantizer_of(view, name)
    name = name if opened is None else opened.input[0]
    for scope in _scopes(view):
        if name in scope.initializers:
            return tuple(scope.initializers[name].dims)
    value = view.constant(name)
    return None if value is None else value.shape


def output_axis(view: GraphView, node: onnx.NodeProto, rank: int) -> int | None:
    """Axis of a weight's codes that counts output channels; None where that cannot be said."""
    name = weight_of(view, node)
    match node.op_type:
        case "Conv":
            axis = 0
        case "ConvTranspose":
            axis = 1
        case "Gemm":
            axis = 0 if attribute(node, "transB", 0) else 1
        case "MatMul":
            axis = rank - 1 if name == node.input[1] else rank - 2
        case _:
            return None
    source = view.producer(name)
    while source is not None and source.op_type == "Transpose":
        orders = [list(entry.ints) for entry in source.attribute if entry.name == "perm"]
        order = orders[0] if orders else list(range(rank))[::-1]
        if not 0 <= axis < len(order):
            return None
        axis = order[axis]
        source = view.producer(source.input[0])
    return axis if source is not None and source.op_type == "DequantizeLinear" else None


def _scopes(view: GraphView) -> Iterator[GraphView]:
    scope: GraphView | None = view
    while scope is not None:
        yield scope
        scope = scope.outer


def _name_of(data_type: int) -> str | None:
    try:
        return str(helper.tensor_dtype_to_np_dtype(data_type).name)
    except (KeyError, TypeError):
        return None
