"""Pad channels with zeros to the widths that ONNX Runtime's fused int8 convolutions take on x86-64.

The convolution that rounds its accumulator to the output's codes inside the kernel takes 16 k channels where
it is depthwise; where it is dense it takes 4 k inputs, and 16 outputs or more, 8 k of them with AVX2. Other
widths go the long way: im2col, a product into a 32-bit buffer, and a pass that requantizes. A depthwise
convolution of 72 channels takes twice as long as one of 80.

Where all operations along a group of tensors work channel by channel, zero channels can be added to all of
it: zero filters make them, and zero columns of the next filters read them. The network's input gets its own
through a Pad. No code of another channel changes: the rewrite is exact.

Sources: onnxruntime core/mlas/lib/convsym.cpp (MlasConvSymPackWSize) and
core/providers/cpu/quantization/qlinearconv.cc; measured with onnxruntime 1.31.1 (benchmarks/int8/speed.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import helper

from edgekd.conversion.channel_groups import ChannelGroup, ChannelGroups, Filters, filters_of
from edgekd.conversion.edit_graph import add_constant, free_name, replace_nodes
from edgekd.conversion.graph_view import GraphView
from edgekd.documents.rewrites import DENSE_OUTPUTS, DENSE_STEP, DEPTHWISE_STEP, INPUT_STEP


def pad_channels(graph: onnx.GraphProto) -> int:
    """Pad every group of tensors that gains by it, in place; returns how many were padded."""
    count = _pad_groups(GraphView.of(graph)) + _pad_input(GraphView.of(graph))
    if count:
        del graph.value_info[:]  # its shapes are no longer true
    return count


def _pad_groups(view: GraphView) -> int:
    groups = ChannelGroups(view)
    wanted = {group.root: padded for group in groups if (padded := _width(group)) != group.width}
    for node in view.graph.node:
        filters = filters_of(view, node)
        if filters is not None:
            outputs = wanted.get(groups.root(node.output[0]), filters.outputs)
            inputs = wanted.get(groups.root(node.input[0]), filters.inputs)
            _resize(view, filters, outputs, filters.inputs if filters.depthwise else inputs)
    return len(wanted)


def _width(group: ChannelGroup) -> int:
    if group.depthwise:
        return _up(group.width, DEPTHWISE_STEP)
    return max(_up(group.width, DENSE_STEP), DENSE_OUTPUTS)


def _up(width: int, step: int) -> int:
    return -(-width // step) * step


def _resize(view: GraphView, filters: Filters, outputs: int, inputs: int) -> None:
    """Give a convolution filters for so many channels; the new ones are zero, and so are their biases."""
    more, columns = (0, outputs - filters.outputs), (0, inputs - filters.inputs)
    if not (more[1] or columns[1]):
        return
    opened, node = filters.dequantizer.input, filters.node
    zero_point = view.constant(opened[2])
    assert zero_point is not None
    zero, rest = int(zero_point.flat[0]), [(0, 0)] * (filters.codes.ndim - 2)
    opened[0] = _padded(view, opened[0], [more, columns, *rest], zero)
    opened[1] = _padded(view, opened[1], [more], 1)
    if zero_point.ndim:
        opened[2] = _padded(view, opened[2], [more], zero)
    if len(node.input) > 2:
        node.input[2] = _padded(view, node.input[2], [more], 0)
    for entry in node.attribute:
        if entry.name == "group" and filters.depthwise:
            entry.i = outputs


def _padded(view: GraphView, name: str, more: Sequence[tuple[int, int]], value: int) -> str:
    """A copy of a constant with so many values more on each axis; returns its name."""
    constant = view.constant(name)
    assert constant is not None
    return add_constant(view, f"{name}_padded", np.pad(constant, more, constant_values=value))


def _pad_input(view: GraphView) -> int:
    """Widen what the first convolutions read, where they alone read the input's codes."""
    for entry in view.graph.input:
        quantizer, filters = _first_layer(view, entry.name)
        more = -filters[0].inputs % INPUT_STEP if filters else 0
        if quantizer is not None and more:
            for each in filters:
                _resize(view, each, each.outputs, each.inputs + more)
            _insert_pad(view, quantizer, more, rank=filters[0].codes.ndim)
            return 1
    return 0


def _first_layer(view: GraphView, name: str) -> tuple[onnx.NodeProto | None, list[Filters]]:
    """The quantizer of the input and the dense convolutions behind it, if nothing else is."""
    quantizers = [node for node in view.consumers.get(name, []) if node.op_type == "QuantizeLinear"]
    if len(quantizers) != 1:
        return None, []
    opened = view.consumers.get(quantizers[0].output[0], [])
    readers = [reader for node in opened for reader in view.consumers.get(node.output[0], [])]
    filters = [filters_of(view, node) for node in readers]
    dense = [found for found in filters if found is not None and found.groups == 1]
    return (quantizers[0], dense) if dense and len(dense) == len(filters) else (None, [])


def _insert_pad(view: GraphView, quantizer: onnx.NodeProto, more: int, *, rank: int) -> None:
    """Put a Pad of the channels, which are axis 1, before a quantizer."""
    pads = np.zeros(2 * rank, np.int64)
    pads[rank + 1] = more
    source = quantizer.input[0]
    padded = free_name(view, f"{source}_padded")
    inputs = [source, add_constant(view, f"{source}_pads", pads)]
    pad = helper.make_node("Pad", inputs, [padded], name=f"{source}/Pad")
    nodes = list(view.graph.node)
    quantizer.input[0] = padded
    nodes.insert(nodes.index(quantizer), pad)
    replace_nodes(view.graph, nodes)
