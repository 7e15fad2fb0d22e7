"""Causes in an operator itself, its weight and its bias.

Sources: onnxruntime core/optimizer/qdq_transformer (selectors_actions/qdq_selectors and
weight_bias_quantization), and the optimized graphs of onnxruntime 1.31.1, one test a cause.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.lookup import (
    QUANTIZERS,
    bias_of,
    code_type,
    codes_of,
    dequantizer_of,
    element_type,
    input_of,
    output_axis,
    weight_of,
    weight_shape,
    zero_points,
)
from edgekd.conversion.graph_view import GraphView, attribute

_OPENABLE = ("int8", "uint8")
_RELATIVE_TOLERANCE = 1e-5
_WEIGHT_OF_CODES = {
    **dict.fromkeys(("QLinearConv", "QLinearMatMul", "QGemm"), 3),
    **dict.fromkeys(("ConvInteger", "MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"), 1),
}
"""Which input of an operator on codes is its weight."""


def graph_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """No quantizer in the operator's graph or in those around it."""
    scope: GraphView | None = view
    while scope is not None:
        if any(other.op_type in QUANTIZERS for other in scope.graph.node):
            return None
        scope = scope.outer
    return because("graph-not-quantized")


def no_int8_kernel(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Operators for which ONNX Runtime's CPU provider has no kernel in int8."""
    if node.op_type in ("Conv", "Gemm", "MatMul"):
        return None
    kind, advice = node.op_type, None
    if kind == "ConvTranspose":
        advice = "use Resize and Conv in its place"
    elif kind.startswith("Fused"):
        advice = "give the runtime the graph as it was before it was optimized"
    return because("no-int8-kernel", f"ONNX Runtime's CPU provider has no int8 {kind}", advice)


def half_precision(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Scales in float16: the kernels of ONNX Runtime's CPU provider want float32."""
    for name in (input_of(view, node), weight_of(view, node)):
        source = dequantizer_of(view, name)
        kind = None if source is None else element_type(view, source.input[1])
        if kind in ("float16", "bfloat16"):
            return because(
                "half-precision-scales",
                f"the scales of '{name}' are {kind}; ONNX Runtime's int8 kernels take float32",
            )
    return None


def weight_not_constant(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A weight that is computed, or an input of the graph."""
    if view.is_constant(weight_of(view, node)):
        return None
    return because("weight-not-constant", "its weight is not a constant")


def weight_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A weight without a DequantizeLinear."""
    if dequantizer_of(view, weight_of(view, node)) is not None:
        return None
    return because("weight-not-quantized", "its weight is not quantized")


def weight_type(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A weight of another type than 8 bits."""
    source = dequantizer_of(view, weight_of(view, node))
    found = None if source is None else codes_of(view, source)
    if found is None or found in _OPENABLE:
        return None
    activation = code_type(view, input_of(view, node))
    return because("weight-type", f"its weight is {found} and its input {activation}")


def weight_axis(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A weight whose scales belong to another axis than that of the output channels."""
    source, shape = dequantizer_of(view, weight_of(view, node)), weight_shape(view, node)
    if source is None or not shape or attribute(source, "block_size", 0):
        return None
    scale, axis = view.constant(source.input[1]), output_axis(view, node, len(shape))
    if scale is None or scale.size <= 1 or axis is None:
        return None
    found = attribute(source, "axis", 1) % len(shape)
    if found == axis:
        return None
    return because("weight-axis", f"its weight has its scales on axis {found}, not on axis {axis}")


def asymmetric_weight(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A weight whose zero points are not the middle of its type."""
    source = dequantizer_of(view, weight_of(view, node))
    zeros = None if source is None else zero_points(view, source)
    if zeros is None or not np.issubdtype(zeros.dtype, np.integer):
        return None
    middle = 128 if zeros.dtype == np.uint8 else 0
    others = sorted({int(zero) for zero in zeros.flat} - {middle})
    if not others:
        return None
    found = f"the zero point {others[0]}" if len(others) == 1 else f"zero points {others[0]} to {others[-1]}"
    return because("asymmetric-weights", f"its weight has {found}, not {middle} alone")


def unsigned_weight(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A weight in uint8, for which there are no products of four pairs at once."""
    place = _WEIGHT_OF_CODES.get(node.op_type)
    if place is None:
        found: str | None = code_type(view, weight_of(view, node))
    else:
        found = element_type(view, node.input[place]) if place < len(node.input) else None
    if found != "uint8":
        return None
    return because("unsigned-weights", "its weight is uint8; int8 weights have faster kernels here")


def bias(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A bias that is neither a float constant nor int32 at the scale of input times weight."""
    name = bias_of(node)
    if name is None:
        return None
    source = dequantizer_of(view, name)
    if source is None and view.is_constant(name):
        return None
    if source is None:
        return because("bias-not-constant", "its bias is computed, so that the runtime cannot quantize it")
    kind = codes_of(view, source)
    if kind != "int32":
        return because("bias-type", f"its bias is quantized to {kind}, not to int32")
    if _accumulates(view, node, source):
        return None
    return because("bias-scale", "its int32 bias has another scale than that of input times weight")


def gemm_factor(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Factors, which QGemm does not know."""
    if node.op_type != "Gemm":
        return None
    factors = [entry.name for entry in node.attribute if entry.name in ("alpha", "beta") and entry.f != 1.0]
    if not factors:
        return None
    return because("gemm-factor", f"it has a factor {' and '.join(factors)}")


def float_gemm_bias(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A Gemm with a float output becomes QGemm only with an int32 bias."""
    name = bias_of(node) if node.op_type == "Gemm" else None
    if name is None or dequantizer_of(view, name) is not None:
        return None
    return because("gemm-bias", "its output is float and its bias is not quantized")


def _accumulates(view: GraphView, node: onnx.NodeProto, bias_source: onnx.NodeProto) -> bool:
    """Whether an int32 bias has the scale of the accumulator that it is added to."""
    sources = [dequantizer_of(view, name) for name in (input_of(view, node), weight_of(view, node))]
    scales = [None if source is None else view.constant(source.input[1]) for source in sources]
    found = view.constant(bias_source.input[1])
    if found is None or scales[0] is None or scales[1] is None:
        return False
    try:
        wanted = scales[0].reshape(-1) * scales[1].reshape(-1)
        return bool(np.allclose(found.reshape(-1), wanted, rtol=_RELATIVE_TOLERANCE, atol=0))
    except ValueError:  # as many scales as do not go together
        return False
