"""What kind of work an operator is, and how much: products of weighted operators, operations of the others.

A weighted operator of n outputs, each of them the sum of k products, has n x k MACs and twice as many
operations. One of the others has a number of operations for each element that it makes (a pool: for each that
it reads), which is no more than a habit of counting: the calibration measures what such an operation takes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

from edgekd.conversion.graph_view import attribute
from edgekd.documents.prediction import OperatorClass
from edgekd.measure.prediction.tensors import Tensors

QUANTIZERS = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""Operators that say another shape of the same bytes."""
ON_CODES: Mapping[str, tuple[int, ...]] = {
    "QLinearConv": (0, 3, 8),
    "QLinearMatMul": (0, 3),
    "QGemm": (0, 3, 6),
    "ConvInteger": (0, 1),
    "MatMulInteger": (0, 1),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
    "QLinearGlobalAveragePool": (0,),
    "QLinearAveragePool": (0,),
    "QLinearSigmoid": (0,),
    "QLinearLeakyRelu": (0,),
    "QLinearSoftmax": (0,),
}
"""Operators on codes of 8 bits, and which of their inputs are tensors: the others are scales."""
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose", "FusedConv", "QLinearConv", "ConvInteger"})
_PRODUCTS = frozenset(
    {"Gemm", "MatMul", "FusedGemm", "FusedMatMul", "QGemm", "QLinearMatMul", "MatMulInteger"}
)
WEIGHTED = _CONVOLUTIONS | _PRODUCTS
_SIMPLE = frozenset(
    {
        *("Add", "Sub", "Mul", "Div", "Relu", "Clip", "Neg", "Abs", "Min", "Max", "Sum", "Mean", "Where"),
        *("Floor", "Ceil", "Round", "Sign", "Sqrt", "Reciprocal", "LeakyRelu", "PRelu", "HardSigmoid"),
        *("HardSwish", "ThresholdedRelu", "BatchNormalization", "Cast", "Equal", "Greater", "Less", "Not"),
        *("And", "Or", "GreaterOrEqual", "LessOrEqual", "QLinearAdd", "QLinearMul", "QLinearLeakyRelu"),
        *QUANTIZERS,
    }
)
_HARD = frozenset(
    {
        *("Exp", "Log", "Pow", "Sigmoid", "Tanh", "Erf", "Sin", "Cos", "Softplus", "Softsign", "Mish", "Elu"),
        *("Selu", "Celu", "Gelu", "FastGelu", "QuickGelu", "BiasGelu", "Swish", "QLinearSigmoid"),
    }
)
_ROWS = frozenset(
    {
        *("Softmax", "LogSoftmax", "QLinearSoftmax", "LayerNormalization", "InstanceNormalization"),
        *("GroupNormalization", "RMSNormalization", "LpNormalization", "SkipLayerNormalization", "LRN"),
        *("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"),
    }
)
_HARD_OPERATIONS = 10
"""Of one element of a function that takes a polynomial or a table, or of a norm over a row."""
_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "QLinearAveragePool"})
_REDUCTIONS = frozenset(
    {
        *("GlobalAveragePool", "GlobalMaxPool", "QLinearGlobalAveragePool", "ArgMax", "ArgMin", "TopK"),
        *(f"Reduce{name}" for name in ("Mean", "Sum", "Max", "Min", "Prod", "L1", "L2", "SumSquare")),
    }
)
_MOVES = frozenset(
    {
        *("Transpose", "Concat", "QLinearConcat", "Slice", "Split", "Gather", "GatherElements", "GatherND"),
        *("Pad", "Expand", "Tile", "Resize", "Upsample", "DepthToSpace", "SpaceToDepth", "ScatterND"),
        *("Shape", "Size", "ConstantOfShape", "Range", "ReorderInput", "ReorderOutput", "CumSum"),
    }
)


def is_elementwise(op_type: str) -> bool:
    """Whether each element is made of those in the same place: neighbors in a chain run as one."""
    return op_type in _SIMPLE or op_type in _HARD


def kind_of(node: onnx.NodeProto, tensors: Tensors) -> OperatorClass:
    """The class of an operator by itself; `other` where its work cannot be counted."""
    op_type = node.op_type
    if op_type in WEIGHTED:
        if macs_of(node, tensors) is None:
            return "other"
        return _convolution(node, tensors) if op_type in _CONVOLUTIONS else "gemm"
    if op_type in VIEWS or op_type in _MOVES:
        return "data movement"
    if is_elementwise(op_type) or op_type in _ROWS:
        return "elementwise"
    return "pooling" if op_type in _POOLS | _REDUCTIONS else "other"


def _convolution(node: onnx.NodeProto, tensors: Tensors) -> OperatorClass:
    weight = tensors.shape(operands(node)[1]) or ()
    group = attribute(node, "group", 1)
    if group > 1 and weight[1:2] == (1,):
        return "depthwise"
    return "pointwise" if group == 1 and math.prod(weight[2:]) == 1 else "conv"


def operands(node: onnx.NodeProto) -> tuple[str, str]:
    """The two factors of a weighted operator."""
    first, second = ON_CODES.get(node.op_type, (0, 1))[:2]
    return node.input[first], node.input[second]


def macs_of(node: onnx.NodeProto, tensors: Tensors) -> int | None:
    """Products that a weighted operator adds up; None where a shape is not known."""
    x, weight = (tensors.shape(name) for name in operands(node))
    made = tensors.shape(node.output[0])
    if x is None or weight is None or made is None or not x or len(weight) < 1:
        return None
    if node.op_type == "ConvTranspose":  # (C_in, C_out / group, *kernel): each input element is spread
        return math.prod(x) * math.prod(weight[1:])
    if node.op_type in _CONVOLUTIONS:  # (C_out, C_in / group, *kernel)
        return math.prod(made) * math.prod(weight[1:])
    inner = x[0] if attribute(node, "transA", 0) else x[-1]
    return math.prod(made) * inner


def width_of(node: onnx.NodeProto, tensors: Tensors, macs: int) -> int:
    """Products of one position of a weighted operator: N x K of a matrix product, or of one group.

    A depthwise convolution, whose groups are computed side by side, is as wide as all of them.
    """
    made = tensors.shape(node.output[0]) or (1,)
    convolution = node.op_type in _CONVOLUTIONS
    outputs = made[1] if convolution and len(made) > 1 else made[-1]
    positions = max(1, math.prod(made) // max(1, outputs))
    groups = attribute(node, "group", 1) if kind_of(node, tensors) == "conv" else 1
    return max(1, macs // positions // groups)


def operations_of(node: onnx.NodeProto, tensors: Tensors) -> int | None:
    """Operations of an operator without weights; None where its work cannot be counted."""
    made = tensors.elements(node.output[0]) if node.output else None
    if made is None:
        return None
    op_type = node.op_type
    if op_type in _POOLS:
        sizes = next((entry.ints for entry in node.attribute if entry.name == "kernel_shape"), [1])
        return made * math.prod(sizes)
    if op_type in _REDUCTIONS:
        return tensors.elements(node.input[0])
    if op_type in VIEWS or op_type in _MOVES:
        return 0
    if is_elementwise(op_type) or op_type in _ROWS:
        return made * (1 if op_type in _SIMPLE else _HARD_OPERATIONS)
    return None
