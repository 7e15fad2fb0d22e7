"""Keep ONNX Runtime from quantizing what a scheme has in float.

Where a convolution or a Gemm stands between quantizers, ONNX Runtime rounds a float weight to int8 itself,
with one scale for the whole tensor: coarser than anything a scheme asks for, and nothing in the graph says
so. It asks for one scale behind the layer's input. So such a layer gets its input through a DequantizeLinear
of its own, which has the same scale written out for every channel: the same values, and nothing to match. The
other way, a bias that is no constant, keeps the layer from the blocked kernels and takes 10 to 20 % longer.

An input of one channel cannot be told from one scale: there ONNX Runtime does as it likes.

Source: onnxruntime core/optimizer/qdq_transformer/weight_bias_quantization.cc; measured with onnxruntime
1.31.1, and for the two ways side by side on four layers of a ResNet-20.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper

from edgekd.conversion.edit_graph import add_constant, free_name, replace_nodes
from edgekd.conversion.graph_view import GraphView, attribute

_CLIPS = ("Relu", "Clip")
_CHANNELS = 1
"""The axis of a layer's input that its channels lie on."""


def keep_float_layers(graph: onnx.GraphProto) -> int:
    """Rewrite every such layer, in place; returns how many."""
    view, count = GraphView.of(graph), 0
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        channels = _channels_of_float(view, node)
        source = view.producer(node.input[0]) if channels else None
        if source is not None and source.op_type == "DequantizeLinear" and _is_rounded(view, node):
            nodes.append(_own_dequantizer(view, node, source, channels))
            count += 1
        nodes.append(node)
    if count:
        replace_nodes(graph, nodes)
    return count


def _channels_of_float(view: GraphView, node: onnx.NodeProto) -> int:
    """Input channels of a layer whose weight is a float constant; 0 for any other node."""
    weight = view.constant(node.input[1]) if node.op_type in ("Conv", "Gemm") else None
    if weight is None or weight.dtype != np.float32 or weight.ndim < 2:
        return 0
    if node.op_type == "Conv":
        return int(weight.shape[1]) * attribute(node, "group", 1)
    axis = 1 if attribute(node, "transB", 0) else 0
    return 0 if attribute(node, "transA", 0) else int(weight.shape[axis])


def _is_rounded(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether nothing but a quantizer reads what a node yields, past activations that only clip."""
    readers = view.consumers.get(node.output[0], [])
    if len(readers) != 1 or view.is_output(node.output[0]):
        return False
    clipped = readers[0].op_type in _CLIPS and _is_rounded(view, readers[0])
    return clipped or readers[0].op_type == "QuantizeLinear"


def _own_dequantizer(
    view: GraphView, node: onnx.NodeProto, source: onnx.NodeProto, channels: int
) -> onnx.NodeProto:
    """Let a node read a DequantizeLinear of its own, which has a scale for every channel."""
    opened = free_name(view, f"{node.input[0]}_{node.output[0]}")
    names = [source.input[0]]
    for name, part in zip(source.input[1:], ("scale", "zero_point"), strict=False):
        value = view.constant(name)
        assert value is not None, "the graph was checked: its quantizers have constant scales"
        names.append(
            add_constant(view, f"{opened}_{part}", np.full(channels, value.reshape(()), value.dtype))
        )
    node.input[0] = opened
    return helper.make_node("DequantizeLinear", names, [opened], name=opened, axis=_CHANNELS)
