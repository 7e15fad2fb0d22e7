"""Take quantizers out of a graph: all of them, or those of chosen tensors.

An activation's quantizer is a QuantizeLinear with the DequantizeLinear nodes behind it, also where the
codes are only moved on their way (Reshape, Transpose, MaxPool). Without them the tensor passes as it is.
A weight's or a bias's quantizer is the DequantizeLinear that opens a constant; without it the constant
stands there in float, with the values that its codes mean. A QuantizeLinear whose codes are read by
anything else, such as QLinearConv, stays: the graph would compute something else without it.

ONNX, operators QuantizeLinear and DequantizeLinear: x = (code - zero point) * scale, with one scale, one
for each index of an axis, or one for each block of an axis.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.conversion.graph_view import GraphView, attribute, views
from edgekd.errors import ConversionError
from edgekd.runtimes.graph_file import MAX_GRAPH_BYTES

_MOVES_CODES = frozenset(
    {
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Identity"),
        *("Slice", "Split", "Gather", "MaxPool"),
    }
)
"""Operators that put codes elsewhere, or choose among them, and so do the same to what the codes mean."""


@dataclass(frozen=True)
class QuantizedTensor:
    """One tensor of a graph that has a quantizer."""

    name: str
    """The tensor that QuantizeLinear reads; of a constant behind a lone DequantizeLinear, its codes."""
    kind: Literal["activation", "constant"]
    """Whether it depends on the graph's input."""
    quantizer: onnx.NodeProto | None
    """The QuantizeLinear; None where the graph holds codes."""
    dequantizers: tuple[onnx.NodeProto, ...]
    """The DequantizeLinear nodes that open its codes."""
    view: GraphView = field(repr=False)
    """The graph that it lies in."""


def quantized_tensors(model: onnx.ModelProto) -> tuple[QuantizedTensor, ...]:
    """Every quantized tensor that `remove_quantizers` can set free, in the order of the graph."""
    return tuple(tensor for view in views(model) for tensor in _tensors_of(view))


def remove_quantizers(model: onnx.ModelProto, tensors: Collection[str] | None = None) -> onnx.ModelProto:
    """A copy of a graph in which tensors pass in float.

    Args:
        model: the graph with its weights inside, as read_graph leaves it; it stays as it is.
        tensors: names of `quantized_tensors`; None takes every quantizer out.

    Raises:
        ConversionError: the float weights do not fit into one ONNX file.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for view in views(copy):
        chosen = [one for one in _tensors_of(view) if tensors is None or one.name in tensors]
        if chosen:
            _rewrite(view, chosen)
    if copy.ByteSize() > MAX_GRAPH_BYTES:
        raise ConversionError("is larger than 2 GiB with its weights in float")
    _drop_unused(copy.graph)
    return copy


def dequantize(
    codes: np.ndarray, scale: np.ndarray, zero_point: np.ndarray | None, *, axis: int = 1, block: int = 0
) -> np.ndarray:
    """What codes of any shape mean, in the scale's type.

    Args:
        codes: integers, or the small floats of an 8-bit float type.
        scale: one number, (C,) along `axis`, or with `block` the codes' shape with `axis` in blocks.
        zero_point: as `scale`; None is 0.
        axis: which axis of the codes a scale (C,) belongs to.
        block: length of a block; 0 where there are none.

    Raises:
        ValueError: the shapes do not fit together.
    """
    factor, offset = (_spread(part, codes, axis, block) for part in (scale, zero_point))
    values = codes.astype(np.float64) - (0.0 if offset is None else offset.astype(np.float64))
    assert factor is not None
    return np.asarray(values * factor.astype(np.float64), dtype=scale.dtype)


def constant_behind(view: GraphView, node: onnx.NodeProto) -> np.ndarray | None:
    """Value of a constant that a DequantizeLinear opens; None where it, or its scale, is no constant."""
    codes, scale = codes_behind(view, node), view.constant(node.input[1])
    zero_point = view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if codes is None or scale is None or (len(node.input) > 2 and node.input[2] and zero_point is None):
        return None
    axis, block = attribute(node, "axis", 1), attribute(node, "block_size", 0)
    try:
        return dequantize(codes, scale, zero_point, axis=axis, block=block)
    except ValueError:
        return None


def codes_behind(view: GraphView, node: onnx.NodeProto) -> np.ndarray | None:
    """The constant codes that a DequantizeLinear opens, also where a Cast widens them; else None."""
    codes, source = view.constant(node.input[0]), view.producer(node.input[0])
    if codes is not None or source is None or source.op_type != "Cast":
        return codes
    narrow = view.constant(source.input[0])
    wanted = attribute(source, "to", onnx.TensorProto.INT8)
    return None if narrow is None else narrow.astype(helper.tensor_dtype_to_np_dtype(wanted))


def _spread(part: np.ndarray | None, codes: np.ndarray, axis: int, block: int) -> np.ndarray | None:
    """A scale or zero point in a shape that goes with the codes."""
    if part is None or part.size == 1:
        return None if part is None else part.reshape(())
    if not -codes.ndim <= axis < codes.ndim:
        raise ValueError(f"axis {axis} of codes with {codes.ndim} axes")
    axis %= codes.ndim
    if block:
        return np.repeat(part, block, axis).take(range(codes.shape[axis]), axis)
    if part.shape != (codes.shape[axis],):
        raise ValueError(f"scales {part.shape} for axis {axis} of codes {codes.shape}")
    return part.reshape([-1 if index == axis else 1 for index in range(codes.ndim)])


def _tensors_of(view: GraphView) -> Iterator[QuantizedTensor]:
    for node in view.graph.node:
        if node.op_type == "QuantizeLinear":
            opened = _opened_by(view, node)
            kind: Literal["activation", "constant"] = (
                "constant" if view.is_constant(node.input[0]) else "activation"
            )
            if opened is not None and not view.is_output(node.output[0]):
                yield QuantizedTensor(node.input[0], kind, node, tuple(opened), view)
        elif node.op_type == "DequantizeLinear" and constant_behind(view, node) is not None:
            yield QuantizedTensor(node.input[0], "constant", None, (node,), view)


def _opened_by(view: GraphView, node: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    """The DequantizeLinear nodes behind a QuantizeLinear; None where its codes are read by something else."""
    found: list[onnx.NodeProto] = []
    readers = list(view.consumers.get(node.output[0], []))
    while readers:
        reader = readers.pop()
        if reader.op_type == "DequantizeLinear" and _same_type(view, node, reader):
            found.append(reader)
        elif reader.op_type in _MOVES_CODES and not any(map(view.is_output, reader.output)):
            readers += [after for name in reader.output for after in view.consumers.get(name, [])]
        else:
            return None
    return found or None


def _same_type(view: GraphView, one: onnx.NodeProto, other: onnx.NodeProto) -> bool:
    """Whether two quantizers have scales of one float type, so that both ends of the pair have it too."""
    scales = [view.constant(node.input[1]) for node in (one, other)]
    return scales[0] is None or scales[1] is None or scales[0].dtype == scales[1].dtype


def _rewrite(view: GraphView, chosen: list[QuantizedTensor]) -> None:
    gone, renamed = set(), {}
    for tensor in chosen:
        for node in tensor.dequantizers:
            if tensor.quantizer is None:
                value = constant_behind(view, node)
                assert value is not None, "a constant was listed because it can be opened"
                view.graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
            elif (factor := _factor(view, tensor.quantizer, node)) is not None:
                _multiply(view, node, factor)
                continue
            else:
                renamed[node.output[0]] = node.input[0]
            gone.add(node.output[0])
        if tensor.quantizer is not None:
            renamed[tensor.quantizer.output[0]] = tensor.quantizer.input[0]
            gone.add(tensor.quantizer.output[0])
    _read_instead(view.graph, {name: _last(name, renamed) for name in renamed})
    _replace_nodes(view, gone, renamed)


def _factor(view: GraphView, quantizer: onnx.NodeProto, dequantizer: onnx.NodeProto) -> np.ndarray | None:
    """What a pair multiplies by, which opens codes with another scale than it made them with; None for 1."""
    scales = [view.constant(node.input[1]) for node in (quantizer, dequantizer)]
    if scales[0] is None or scales[1] is None or scales[0].size != 1 or scales[1].size != 1:
        return None
    with np.errstate(divide="ignore", invalid="ignore"):
        factor = scales[1].reshape(()) / scales[0].reshape(())
    return np.asarray(factor) if factor != 1 and np.isfinite(factor) else None


def _multiply(view: GraphView, node: onnx.NodeProto, factor: np.ndarray) -> None:
    """Let a product with a constant stand in the place of a DequantizeLinear."""
    name = f"{node.output[0]}_factor"
    view.graph.initializer.append(numpy_helper.from_array(factor, name))
    node.op_type, node.domain, node.input[:] = "Mul", "", [node.input[0], name]
    del node.attribute[:]


def _last(name: str, renamed: dict[str, str]) -> str:
    """The tensor at the end of a chain of names, such as that of two quantizers in a row."""
    while name in renamed:
        name = renamed[name]
    return name


def _read_instead(graph: onnx.GraphProto, renamed: dict[str, str]) -> None:
    """Let every node, also those of graphs inside, read the new names."""
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
        for entry in node.attribute:
            for inner in [entry.g] if entry.type == onnx.AttributeProto.GRAPH else entry.graphs:
                _read_instead(inner, renamed)


def _replace_nodes(view: GraphView, gone: set[str], renamed: dict[str, str]) -> None:
    """Leave out the quantizers; a tensor that is the graph's output keeps its name through an Identity."""
    graph, nodes = view.graph, []
    for node in graph.node:
        name = node.output[0] if node.output else ""
        if name not in gone:
            nodes.append(node)
        elif name in renamed and view.is_output(name):
            nodes.append(
                helper.make_node("Identity", [_last(name, renamed)], [name], name=f"{name}/Identity")
            )
    _keep(graph.node, nodes)
    del graph.value_info[:]  # what was codes is float now; no runtime needs these


def _drop_unused(graph: onnx.GraphProto) -> set[str]:
    """Drop the constants that nothing reads, here and in the graphs inside; what is read comes back."""
    used = {output.name for output in graph.output}
    nodes = []
    for node in reversed(graph.node):
        if node.op_type in ("Constant", "Cast") and used.isdisjoint(node.output):
            continue
        nodes.append(node)
        used |= set(node.input)
        for entry in node.attribute:
            for inner in [entry.g] if entry.type == onnx.AttributeProto.GRAPH else entry.graphs:
                used |= _drop_unused(inner)
    unused = {tensor.name for tensor in graph.initializer} - used
    # Before IR version 4 an initializer is listed as an input too.
    _keep(graph.input, [entry for entry in graph.input if entry.name not in unused])
    _keep(graph.initializer, [tensor for tensor in graph.initializer if tensor.name in used])
    _keep(graph.node, nodes[::-1])
    return used


def _keep(messages: Any, kept: list[Any]) -> None:
    """Shorten a list of messages; those that leave it are no longer valid, so the kept ones are copied."""
    if len(kept) == len(messages):
        return
    copies = [type(message)() for message in kept]
    for copy, message in zip(copies, kept, strict=True):
        copy.CopyFrom(message)
    del messages[:]
    messages.extend(copies)
