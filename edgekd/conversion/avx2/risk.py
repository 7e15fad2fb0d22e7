"""Which operators of a graph could saturate on AVX2 without VNNI: by their weights, no example is needed."""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx

from edgekd.conversion.auditing.optimized import COMPUTES, INT8, Optimized
from edgekd.conversion.avx2.operators import is_int8_product, operands, weights_can_saturate
from edgekd.conversion.graph_view import GraphView, label

Risk = Literal["never", "possible", "unknown"]


def operators_at_risk(optimized: Optimized) -> tuple[str, ...]:
    """Names of the operators whose products may saturate, as the user calls them.

    An operator is not named when no activations drive its weights' products out of 16 bits, such as one with
    weights of 7 bits, or where the runtime multiplies exactly: depthwise convolutions, unsigned weights.
    """
    risky = [one.node for one in optimized.nodes if risk_of(one.view, one.node) != "never"]
    return tuple(name_in(optimized, node) for node in risky)


def risk_of(view: GraphView, node: onnx.NodeProto) -> Risk:
    """Whether a node of an optimized graph can saturate; `unknown` where its arithmetic is not known here."""
    if not (INT8.search(node.op_type) and COMPUTES.search(node.op_type)):
        return "never"
    constants = [view.constant(name) if name else None for name in node.input]
    if not any(one is not None and one.dtype == np.int8 for one in constants):
        return "never"
    if not is_int8_product(node):
        return "unknown"
    given = operands(node, constants)
    if "w" not in given or given["w"].dtype != np.int8 or given["x_zero"].dtype != np.uint8:
        return "never"
    if node.op_type != "QLinearConv" and given["w"].ndim != 2:
        return "unknown"
    return "possible" if weights_can_saturate(node, given["w"]) else "never"


def name_in(optimized: Optimized, node: onnx.NodeProto) -> str:
    """What the user calls the operator that a node of the optimized graph was made from."""
    return ", ".join(optimized.names_of(node)) or label(node)
