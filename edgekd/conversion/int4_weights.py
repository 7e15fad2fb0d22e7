"""Store weights of 4 bits in 4 bits: an int4 constant, two codes to a byte, and a Cast to int8 behind it.

ONNX Runtime has no convolution with int4 weights. It carries the Cast out once, when it opens the graph,
and then fuses as it does for an int8 constant: the weight is half as large in the file, and runs as int8.
It knows the Cast from release 1.23 on.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.conversion.graph_view import GraphView
from edgekd.quantization.packing import pack

_LOW, _HIGH = -8, 7


def pack_int4(graph: onnx.GraphProto) -> None:
    """Pack every int8 weight whose codes all fit into 4 bits, in place; the values do not change."""
    view = GraphView.of(graph)
    casts = []
    for name in _weights_of_4_bits(view):
        codes = numpy_helper.to_array(view.initializers[name])
        packed = f"{name}_int4"
        nibbles = pack(codes.view(np.uint8).flatten() & np.uint8(0xF), bits=4)
        graph.initializer.append(
            helper.make_tensor(packed, onnx.TensorProto.INT4, codes.shape, nibbles.tobytes(), raw=True)
        )
        casts.append(
            helper.make_node("Cast", [packed], [name], name=f"{name}/Cast", to=onnx.TensorProto.INT8)
        )
        graph.initializer.remove(view.initializers[name])
    nodes = [*casts, *map(_copy, graph.node)]
    del graph.node[:]
    graph.node.extend(nodes)


def _weights_of_4_bits(view: GraphView) -> list[str]:
    names = dict.fromkeys(node.input[0] for node in view.graph.node if node.op_type == "DequantizeLinear")
    return [name for name in names if name in view.initializers and _fits(view.initializers[name])]


def _fits(tensor: onnx.TensorProto) -> bool:
    if tensor.data_type != onnx.TensorProto.INT8 or len(tensor.dims) < 2:
        return False
    codes = numpy_helper.to_array(tensor)
    return bool(codes.size) and int(codes.min()) >= _LOW and int(codes.max()) <= _HIGH


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
