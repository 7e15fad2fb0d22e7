"""Why ONNX Runtime leaves a weighted operator in float: one function a cause, asked in order.

Sources: onnxruntime core/optimizer/qdq_transformer (qdq_util IsClipMadeRedundantByQ, qdq_selectors,
weight_bias_quantization), and the optimized graphs of onnxruntime 1.31.1, one test a cause.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from edgekd.conversion.check_graph import zero_point_of
from edgekd.conversion.graph_view import GraphView, label

Explanation = tuple[str, str | None]
"""The cause, and what to change; no advice where nothing can be changed."""

_QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYOUT = frozenset({"Transpose", "Reshape", "Identity", "Squeeze", "Unsqueeze", "Flatten"})
_NO_ADVICE: str | None = None


def explain(view: GraphView, node: onnx.NodeProto, runs_as: str | None) -> Explanation:
    """The first cause that holds for an operator that does not run in int8."""
    if runs_as is None:
        return "the runtime removed it: its result is constant or not used", _NO_ADVICE
    for cause in _CAUSES:
        found = cause(view, node)
        if found is not None:
            return found
    return "ONNX Runtime did not fuse it, for a reason that edgekd does not know", _NO_ADVICE


def _graph_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    if any(other.op_type in _QUANTIZERS for other in view.graph.node):
        return None
    return "the graph is not quantized", "quantize it: edgekd compress writes int8 graphs"


def _no_kernel(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    if node.op_type != "ConvTranspose":
        return None
    return "ONNX Runtime's CPU provider has no int8 ConvTranspose", "use Resize and Conv in its place"


def _weight_not_constant(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    if view.is_constant(_weight_of(view, node)):
        return None
    return "its weight is not a constant", "write the weight as an initializer that is no input of the graph"


def _weight_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    if _dequantizer_of(view, _weight_of(view, node)) is not None:
        return None
    return "its weight is not quantized", "write the weight in int8 with a DequantizeLinear after it"


def _input_not_quantized(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    name = _input_of(view, node)
    source = view.producer(name)
    if source is not None and source.op_type == "DequantizeLinear":
        return None
    if source is not None and source.op_type in _LAYOUT and _dequantizer_of(view, name) is not None:
        cause = f"{source.op_type} '{label(source)}' is between it and its input's DequantizeLinear"
        return cause, f"repeat QuantizeLinear and DequantizeLinear after the {source.op_type}"
    made_by = f", made by {source.op_type} '{label(source)}'," if source is not None else ""
    return f"its input '{name}'{made_by} has no DequantizeLinear", "quantize the tensor that it reads"


def _code_types(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    weight, activation = _code_type(view, _weight_of(view, node)), _code_type(view, _input_of(view, node))
    if activation not in ("int8", "uint8"):
        return f"its input is quantized to {activation}", "quantize its input to uint8"
    if weight == "int8" or (weight == "uint8" and activation == "uint8"):
        return None
    return f"its weight is {weight} and its input {activation}", "quantize the weight to int8"


def _dedicated_quantizers(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    readers = _readers_after_activation(view, node)
    if len(readers) < 2 or any(reader.op_type != "QuantizeLinear" for reader in readers):
        return None
    cause = f"its output has {len(readers)} quantizers, one for each reader"
    return cause, "let the readers share one QuantizeLinear"


def _batch_norm(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    after = _only_reader(view, node)
    if after is None or after.op_type != "BatchNormalization":
        return None
    return f"BatchNormalization '{label(after)}' follows it", "fold it into the weight before quantizing"


def _relu_with_signed_codes(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    relu = _only_reader(view, node)
    quantizer = _only_reader(view, relu) if relu is not None and relu.op_type == "Relu" else None
    if quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    zero_point = _zero_point(view, quantizer)
    if int(zero_point) == np.iinfo(zero_point.dtype).min:
        return None
    cause = f"the Relu after it is quantized to {zero_point.dtype} with zero point {int(zero_point)}"
    if zero_point == 0:
        cause += ", as TensorRT wants it; ONNX Runtime folds a Relu only into codes that start at it"
    return cause, "use the dialect onnxruntime-u8: uint8 with zero point 0 after a Relu"


def _narrow_clip(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    clip = _only_reader(view, node)
    quantizer = _only_reader(view, clip) if clip is not None and clip.op_type == "Clip" else None
    if clip is None or quantizer is None or quantizer.op_type != "QuantizeLinear":
        return None
    low, high = (_bound(view, clip, index) for index in (1, 2))
    least, most = _range(view, quantizer)
    if low <= least and most <= high:
        return None
    cause = f"the Clip [{low:g}, {high:g}] after it is narrower than its quantizer [{least:.4g}, {most:.4g}]"
    return cause, "use ReLU in its place, or scales whose range does not exceed the Clip's"


def _activation_not_folded(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    readers = view.consumers.get(node.output[0], [])
    names = {reader.op_type for reader in readers}
    if len(readers) == 2 and names in ({"Sigmoid", "Mul"}, {"HardSigmoid", "Mul"}):
        activation = "SiLU" if "Sigmoid" in names else "HardSwish"
    elif len(readers) == 1 and readers[0].op_type in _ACTIVATIONS:
        activation = readers[0].op_type
    else:
        return None
    cause = f"{activation} is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip"
    return cause, "use ReLU, or quantize before and after the activation"


def _float_reader(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    """A kernel that writes codes needs one QuantizeLinear as the only reader of its output."""
    if node.op_type in ("Gemm", "MatMul"):  # their kernels can write floats
        return None
    readers = _readers_after_activation(view, node)
    floats = [reader for reader in readers if reader.op_type != "QuantizeLinear"]
    if floats:
        # Where Relu is one of several readers, it is the others that keep the output in float.
        reader = min(floats, key=lambda reader: reader.op_type in ("Relu", "Clip"))
        cause = f"its output goes into {reader.op_type} '{label(reader)}' without a QuantizeLinear"
        if reader.op_type in ("Add", "Mul"):
            return cause, f"quantize both inputs and the output of the {reader.op_type}"
        return cause, f"quantize what the {reader.op_type} reads"
    if not readers:
        return "its output leaves the graph in float", "quantize the output"
    return None


def _mixed_types(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    readers = _readers_after_activation(view, node)
    if len(readers) != 1 or readers[0].op_type != "QuantizeLinear":
        return None
    before, after = _code_type(view, _input_of(view, node)), str(_zero_point(view, readers[0]).dtype)
    if before == after:
        return None
    return f"its input is {before} and its output {after}", "quantize both to the same type"


def _gemm_factor(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    if node.op_type != "Gemm":
        return None
    factors = [entry.name for entry in node.attribute if entry.name in ("alpha", "beta") and entry.f != 1.0]
    if not factors:
        return None
    return f"it has a factor {' and '.join(factors)}", "multiply the factor into the weight and bias"


def _float_bias(view: GraphView, node: onnx.NodeProto) -> Explanation | None:
    has_bias = node.op_type == "Gemm" and len(node.input) > 2 and node.input[2]
    if not has_bias or _dequantizer_of(view, node.input[2]) is not None:
        return None
    cause = "its output is float and its bias is not quantized"
    return cause, "use the dialect onnxruntime-u8: an int32 bias at the scale of input times weight"


_ACTIVATIONS = frozenset(
    {
        *("HardSwish", "Swish", "Sigmoid", "HardSigmoid", "Tanh", "Gelu", "Mish", "Softplus"),
        *("LeakyRelu", "PRelu", "Elu", "Selu", "Celu"),
    }
)
_CAUSES: tuple[Callable[[GraphView, onnx.NodeProto], Explanation | None], ...] = (
    _graph_not_quantized,
    _no_kernel,
    _weight_not_constant,
    _weight_not_quantized,
    _input_not_quantized,
    _code_types,
    _gemm_factor,
    _batch_norm,
    _dedicated_quantizers,
    _relu_with_signed_codes,
    _narrow_clip,
    _activation_not_folded,
    _float_reader,
    _mixed_types,
    _float_bias,
)


def _weight_of(view: GraphView, node: onnx.NodeProto) -> str:
    first, second = node.input[:2]
    return str(first if view.is_constant(first) and not view.is_constant(second) else second)


def _input_of(view: GraphView, node: onnx.NodeProto) -> str:
    first, second = node.input[:2]
    return str(second if _weight_of(view, node) == first else first)


def _dequantizer_of(view: GraphView, name: str) -> onnx.NodeProto | None:
    """The DequantizeLinear that opens a tensor, seen through what only moves its elements."""
    source = view.producer(name)
    while source is not None and source.op_type in _LAYOUT:
        source = view.producer(source.input[0])
    return source if source is not None and source.op_type == "DequantizeLinear" else None


def _code_type(view: GraphView, name: str) -> str:
    """Element type of the codes behind a tensor, such as int8."""
    node = _dequantizer_of(view, name)
    return "float" if node is None else _zero_point(view, node).dtype.name


def _zero_point(view: GraphView, node: onnx.NodeProto) -> np.ndarray:
    """First zero point of a quantizer; where it is left out, 0 of the codes' type, else uint8."""
    given = zero_point_of(view, node)
    if given is not None and given.size:
        return np.asarray(given.flat[0])
    codes = view.constant(node.input[0])
    return np.zeros((), np.uint8 if codes is None else codes.dtype)


def _range(view: GraphView, quantizer: onnx.NodeProto) -> tuple[float, float]:
    """Least and greatest value that a quantizer can say."""
    scale, zero_point = view.constant(quantizer.input[1]), _zero_point(view, quantizer)
    if scale is None or not np.issubdtype(zero_point.dtype, np.integer):
        return -np.inf, np.inf
    limits, step = np.iinfo(zero_point.dtype), float(scale.flat[0])
    return step * (limits.min - int(zero_point)), step * (limits.max - int(zero_point))


def _bound(view: GraphView, clip: onnx.NodeProto, index: int) -> float:
    given = view.constant(clip.input[index]) if len(clip.input) > index and clip.input[index] else None
    return float(given.flat[0]) if given is not None else (-np.inf if index == 1 else np.inf)


def _only_reader(view: GraphView, node: onnx.NodeProto) -> onnx.NodeProto | None:
    readers = view.consumers.get(node.output[0], [])
    return readers[0] if len(readers) == 1 else None


def _readers_after_activation(view: GraphView, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """Readers of an operator's output, or of the Relu or Clip that is its only reader."""
    after = _only_reader(view, node)
    if after is not None and after.op_type in ("Relu", "Clip"):
        node = after
    return view.consumers.get(node.output[0], [])
