"""Why TensorRT cannot run a weighted operator in int8, and what keeps its kernels apart: by the ONNX file.

Sources: TensorRT documentation, Working with Quantized Types (explicit quantization: symmetric int8 alone,
scales per tensor for activations and per output channel for weights, and where to place Q/DQ); the importers
of onnx-tensorrt, which refuse other zero points and int32; tests with the parser of TensorRT for RTX 1.7.1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx

from edgekd.conversion.auditing.causes import activations, weights
from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.lookup import (
    bias_of,
    codes_of,
    dequantizer_of,
    input_of,
    only_reader,
    weight_of,
    zero_points,
)
from edgekd.conversion.graph_view import WEIGHTED_OPS, GraphView, label

_Ask = Callable[[GraphView, onnx.NodeProto], Explanation | None]
_FOLDED = ("Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Gelu", "Elu", "Selu", "PRelu")
"""Activation functions that stand for themselves in one node."""


def static_cause(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """The first cause that the file tells; None where nothing speaks against int8."""
    if node.op_type not in WEIGHTED_OPS:
        return _not_parsed(node)
    return next(filter(None, (ask(view, node) for ask in _CAUSES)), None)


def remarks(view: GraphView, node: onnx.NodeProto) -> Iterator[Explanation]:
    """What keeps an operator in int8 from one kernel with what follows it."""
    if node.op_type in WEIGHTED_OPS:
        yield from filter(None, (ask(view, node) for ask in _REMARKS))


def concat_scales(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A Concat whose inputs have different scales."""
    opened = [view.producer(name) for name in node.input] if node.op_type == "Concat" else []
    scales = [
        view.constant(source.input[1])
        for source in opened
        if source is not None and source.op_type == "DequantizeLinear"
    ]
    values = {float(scale.flat[0]) for scale in scales if scale is not None and scale.size == 1}
    return because("concat-scales", f"its inputs have {len(values)} scales") if len(values) > 1 else None


def _not_parsed(node: onnx.NodeProto) -> Explanation:
    text = f"TensorRT knows no {node.op_type}; it reads int8 from QuantizeLinear and DequantizeLinear alone"
    return because("no-int8-kernel", text)


def _unsigned(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """uint8 codes whose zero point is 0, which the parser takes with a warning."""
    for place, source in _quantizers(view, node):
        zeros = zero_points(view, source)
        if codes_of(view, source) == "uint8" and zeros is not None and not zeros.any():
            text = f"the codes of its {place} are uint8, which TensorRT reads as int8"
            return because("unsigned-codes", f"{text} and so clips at half of their range")
    return None


def _zero_point(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A zero point other than 0, which the parser refuses."""
    for place, source in _quantizers(view, node):
        zeros = zero_points(view, source)
        if zeros is not None and np.issubdtype(zeros.dtype, np.integer) and zeros.any():
            found = sorted({int(zero) for zero in zeros.flat} - {0})
            return because("zero-point", f"the zero point of its {place} is {found[0]}, not 0")
    return None


def _int32_bias(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    name = bias_of(node)
    source = None if name is None else dequantizer_of(view, name)
    if source is None or codes_of(view, source) != "int32":
        return None
    return because("int32-bias", "its bias is int32, which TensorRT refuses")


def _activation_per_channel(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    source = dequantizer_of(view, input_of(view, node))
    scale = None if source is None else view.constant(source.input[1])
    if scale is None or scale.size <= 1:
        return None
    return because("activation-per-channel", f"its input has {scale.size} scales, not one")


def _quantizer_before_activation(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Conv, quantizer, activation, quantizer: the activation cannot go into the convolution's kernel."""
    after = _behind_quantizer(view, node)
    if after is None or after.op_type not in _FOLDED:
        return None
    text = f"a quantizer stands between it and {after.op_type} '{label(after)}'"
    return because("quantizer-before-activation", text)


def _quantizer_before_add(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Conv, quantizer, Add: the addition becomes a kernel of its own."""
    after = _behind_quantizer(view, node)
    if after is None or after.op_type != "Add":
        return None
    # One side of an Add goes into its convolution's kernel; the other has to be quantized.
    first = next((one for one in map(view.producer, after.input) if one is not None), None)
    if first is None or first.op_type != "DequantizeLinear" or _opened_from(view, first) is not node:
        return None
    text = f"a quantizer stands between it and Add '{label(after)}', which becomes a kernel of its own"
    return because("quantizer-before-add", text)


def _skip_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """Conv, Add with a float tensor: the fused kernel writes what its other input is."""
    add = only_reader(view, node)
    if add is None or add.op_type != "Add":
        return None
    others = [name for name in add.input if name != node.output[0] and not view.is_constant(name)]
    for name in others:
        source = view.producer(name)
        if source is None or source.op_type != "DequantizeLinear":
            text = f"the other input of Add '{label(add)}', '{name}', is float, and so the result is too"
            return because("skip-not-quantized", text)
    return None


def _batch_norm(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    after = only_reader(view, node)
    if after is None or after.op_type != "BatchNormalization":
        return None
    return because("batch-norm-not-folded", f"BatchNormalization '{label(after)}' follows it")


def _behind_quantizer(view: GraphView, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """The node that alone reads what an operator's own quantizer leaves."""
    quantizer = only_reader(view, node)
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    opened = only_reader(view, quantizer)
    return only_reader(view, opened) if opened is not None else None


def _opened_from(view: GraphView, dequantizer: onnx.NodeProto) -> onnx.NodeProto | None:
    """The operator whose quantized result a DequantizeLinear opens."""
    quantizer = view.producer(dequantizer.input[0])
    return None if quantizer is None else view.producer(quantizer.input[0])


def _quantizers(view: GraphView, node: onnx.NodeProto) -> Iterator[tuple[str, onnx.NodeProto]]:
    for place, name in (("input", input_of(view, node)), ("weight", weight_of(view, node))):
        source = dequantizer_of(view, name)
        if source is not None:
            yield place, source


_CAUSES: tuple[_Ask, ...] = (
    weights.graph_not_quantized,
    _zero_point,
    _unsigned,
    _int32_bias,
    weights.weight_not_constant,
    weights.weight_not_quantized,
    activations.input_not_quantized,
    _activation_per_channel,
    activations.scale_not_constant,
    weights.weight_axis,
)
_REMARKS: tuple[_Ask, ...] = (
    _quantizer_before_activation,
    _quantizer_before_add,
    _skip_not_quantized,
    _batch_norm,
)
