"""Causes in what follows an operator.

A kernel that writes codes needs one QuantizeLinear as the only reader of its output; a Relu or Clip may stand
between them where the quantizer makes it redundant.

Sources: onnxruntime core/optimizer/qdq_transformer (qdq_util IsClipMadeRedundantByQ, selectors_actions/
qdq_selectors), and the optimized graphs of onnxruntime 1.31.1, one test a cause.
"""

from __future__ import annotations

import numpy as np
import onnx

from edgekd.conversion.auditing.causes.explanation import Explanation, because
from edgekd.conversion.auditing.causes.lookup import (
    UNFOLDED_ACTIVATIONS,
    clip_bound,
    code_range,
    last_of,
    only_reader,
    readers_of,
    zero_points,
)
from edgekd.conversion.graph_view import GraphView, label

_WRITES_FLOAT = ("Gemm", "MatMul")
"""Operators that have an int8 kernel which writes floats."""


def dedicated_quantizers(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A quantizer for each reader."""
    readers = readers_of(view, node)
    if len(readers) < 2 or any(reader.op_type != "QuantizeLinear" for reader in readers):
        return None
    text = f"its output has {len(readers)} quantizers, one for each reader"
    return because("dedicated-quantizers", text)


def batch_norm(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A batch norm that was not folded."""
    after = only_reader(view, node)
    if after is None or after.op_type != "BatchNormalization":
        return None
    return because("batch-norm-not-folded", f"BatchNormalization '{label(after)}' follows it")


def relu_zero_point(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A Relu before codes that can be negative."""
    relu = only_reader(view, node)
    quantizer = only_reader(view, relu) if relu is not None and relu.op_type == "Relu" else None
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    zeros = zero_points(view, quantizer)
    if zeros is None or not zeros.size or not np.issubdtype(zeros.dtype, np.integer):
        return None
    zero = int(zeros.flat[0])
    if zero == np.iinfo(zeros.dtype).min:
        return None
    text = f"the Relu after it is quantized to {zeros.dtype} with zero point {zero}"
    if zero == 0:
        text += ", as TensorRT wants it; ONNX Runtime folds a Relu only into codes that start at it"
    return because("relu-zero-point", text)


def clip_range(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A Clip that takes away values which the quantizer could say."""
    clip = only_reader(view, node)
    quantizer = only_reader(view, clip) if clip is not None and clip.op_type == "Clip" else None
    if clip is None or quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    low, high = (clip_bound(view, clip, index) for index in (1, 2))
    least, most = code_range(view, quantizer)
    if low <= least and most <= high:
        return None
    bounds = f"[{low:g}, {high:g}] after it is narrower than its quantizer [{least:.4g}, {most:.4g}]"
    return because("clip-range", f"the Clip {bounds}")


def activation_not_folded(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An activation function that no kernel takes in."""
    readers = view.consumers.get(node.output[0], [])
    names = {reader.op_type for reader in readers}
    if len(readers) == 2 and names in ({"Sigmoid", "Mul"}, {"HardSigmoid", "Mul"}):
        activation = "SiLU" if "Sigmoid" in names else "HardSwish"
    elif len(readers) == 1 and readers[0].op_type in UNFOLDED_ACTIVATIONS:
        activation = readers[0].op_type
    else:
        return None
    text = f"{activation} is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip"
    return because("activation-not-folded", text)


def float_reader(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A reader that is no quantizer."""
    if node.op_type in _WRITES_FLOAT:
        return None
    readers = readers_of(view, node)
    floats = [reader for reader in readers if reader.op_type != "QuantizeLinear"]
    if not floats:
        return None
    # Where Relu is one of several readers, it is the others that keep the output in float.
    reader = min(floats, key=lambda reader: reader.op_type in ("Relu", "Clip"))
    text = f"its output goes into {reader.op_type} '{label(reader)}' without a QuantizeLinear"
    if reader.op_type in ("Add", "Mul"):
        advice = f"quantize both inputs and the output of the {reader.op_type}"
        return because("add-not-quantized", text, advice)
    if reader.op_type == "ReduceMean":
        return because("reduce-mean", text)
    return because("float-reader", text, f"quantize what the {reader.op_type} reads")


def float_output(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """An output of the graph."""
    last = last_of(view, node)
    leaves = view.is_output(node.output[0]) or view.is_output(last.output[0])
    if node.op_type in _WRITES_FLOAT or not (leaves or not readers_of(view, node)):
        return None
    if not readers_of(view, node):
        return because("float-output", "its output leaves the graph in float")
    return because("float-output", "its output leaves the graph in float besides being read")
