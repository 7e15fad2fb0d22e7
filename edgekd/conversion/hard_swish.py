"""HardSwish for ONNX Runtime's int8 kernels: an addition whose saturation is the clipping, and a product.

The canonical graph has x * HardSigmoid(x) between quantizers, which ONNX Runtime computes in float: it has no
int8 kernel for HardSigmoid. Here its gate is written in operators that have one:

    HardSigmoid(x) = clip(x + 3, 0, 6) / 6

The sum is quantized to uint8 with scale 6 / 255 and zero point 0. Codes cannot leave 0 to 255, so that the
Clip is redundant and ONNX Runtime drops it: what runs is QLinearAdd and QLinearMul. The sixth is taken where
the codes are opened: that DequantizeLinear has a sixth of the scale. The gate's grid is the one that the fake
quantizer has under this saturation (quantization/hard_swish.py).

Source: onnxruntime core/optimizer/qdq_transformer/clip_quantizelinear.cc (which Clip is redundant).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper

from edgekd.conversion.edit_graph import add_constant, free_name, replace_nodes
from edgekd.conversion.graph_view import GraphView

_SLOPE, _OFFSET = 1 / 6, 0.5
_REACH, _STEPS = 6.0, 255
_CONSTANTS: dict[str, np.ndarray] = {
    "three_codes": np.array(128, np.uint8),
    "three_scale": np.array(3 / 128, np.float32),
    "zero_point": np.array(0, np.uint8),
    "least": np.array(0, np.float32),
    "most": np.array(_REACH, np.float32),
    "scale": np.array(_REACH / _STEPS, np.float32),
    "sixth": np.array(1 / _STEPS, np.float32),
}


def write_hard_swish_in_int8(graph: onnx.GraphProto) -> int:
    """Rewrite every gate of a HardSwish that lies between quantizers, in place; returns how many."""
    view = GraphView.of(graph)
    gates = [node for node in graph.node if _is_gate(view, node)]
    if not gates:
        return 0
    constants = {name: add_constant(view, f"{name}", value) for name, value in _CONSTANTS.items()}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.extend(_int8_gate(view, node, constants) if node in gates else [node])
    replace_nodes(graph, nodes)
    return len(gates)


def _is_gate(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node is the HardSigmoid of x * HardSigmoid(x), and both x and the product have codes."""
    if node.op_type != "HardSigmoid" or not _has_factors(node):
        return False
    source, readers = view.producer(node.input[0]), view.consumers.get(node.output[0], [])
    if source is None or source.op_type != "DequantizeLinear" or len(readers) != 1:
        return False
    (product,) = readers
    if product.op_type != "Mul" or set(product.input) != {node.input[0], node.output[0]}:
        return False
    following = view.consumers.get(product.output[0], [])
    return [reader.op_type for reader in following] == ["QuantizeLinear"]


def _has_factors(node: onnx.NodeProto) -> bool:
    factors = {"alpha": 0.2, "beta": 0.5} | {entry.name: entry.f for entry in node.attribute}
    return bool(np.allclose((factors["alpha"], factors["beta"]), (_SLOPE, _OFFSET), rtol=1e-6, atol=0))


def _int8_gate(view: GraphView, node: onnx.NodeProto, constants: dict[str, str]) -> Iterator[onnx.NodeProto]:
    """The nodes in the place of a HardSigmoid; the last one makes the tensor that it made."""
    stem, prefix = node.output[0], node.name.rpartition("/")[0] or node.name
    three, total, clipped, codes = (
        free_name(view, f"{stem}_{part}") for part in ("three", "sum", "clipped", "codes")
    )
    grid, zero_point = constants["scale"], constants["zero_point"]
    for operator, inputs, output in (
        ("DequantizeLinear", [constants["three_codes"], constants["three_scale"], zero_point], three),
        ("Add", [node.input[0], three], total),
        ("Clip", [total, constants["least"], constants["most"]], clipped),
        ("QuantizeLinear", [clipped, grid, zero_point], codes),
        ("DequantizeLinear", [codes, constants["sixth"], zero_point], stem),
    ):
        yield helper.make_node(operator, inputs, [output], name=f"{prefix}/{output}")
