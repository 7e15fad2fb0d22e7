"""Shape and element type of every tensor of a graph, for one example in a batch of its own.

ONNX's shape inference does not know the operators of com.microsoft. In a copy of the graph each of them gives
way to the standard operator whose output has the same shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import onnx
from onnx import TensorProto, helper, shape_inference

from edgekd.conversion.auditing.feed import inputs_of
from edgekd.errors import UsageError

_HALF_BYTE = frozenset({TensorProto.INT4, TensorProto.UINT4})


class Tensors:
    """The tensors of a graph by name."""

    def __init__(self, model: onnx.ModelProto) -> None:
        """Infer them.

        Raises:
            UsageError: an axis of an input other than the first is free.
        """
        found = shape_inference.infer_shapes(_standard_twin(model), data_prop=True).graph
        self._types = {
            entry.name: entry.type.tensor_type for entry in (*found.input, *found.value_info, *found.output)
        }
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a tensor; None where it is not known."""
        if name in self._constants:
            return tuple(self._constants[name].dims)
        kind = self._types.get(name)
        if kind is None or not kind.HasField("shape"):
            return None
        sizes = tuple(dim.dim_value if dim.HasField("dim_value") else -1 for dim in kind.shape.dim)
        return None if min(sizes, default=0) < 0 else sizes

    def elements(self, name: str) -> int | None:
        """Number of elements; None where the shape is not known."""
        shape = self.shape(name)
        return None if shape is None else math.prod(shape)

    def element_type(self, name: str) -> int:
        """Element type as in TensorProto.DataType; float where it is not known."""
        if name in self._constants:
            return int(self._constants[name].data_type)
        kind = self._types.get(name)
        return int(kind.elem_type) if kind is not None and kind.elem_type else TensorProto.FLOAT

    def bytes_of(self, name: str) -> int:
        """Size in memory; 0 where the shape is not known."""
        return bytes_for(self.elements(name) or 0, self.element_type(name))


def bytes_for(elements: int, element_type: int) -> int:
    """Bytes of so many elements of a type."""
    if element_type in _HALF_BYTE:
        return (elements + 1) // 2
    try:
        return elements * int(helper.tensor_dtype_to_np_dtype(element_type).itemsize)
    except (KeyError, TypeError):
        return elements * 4


def _standard_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy with a batch of one, standard operators, and no shapes but those of the inputs."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for entry in inputs_of(twin):
        _fix(entry)
    del twin.graph.value_info[:]
    for entry in twin.graph.output:
        entry.ClearField("type")
    for node in twin.graph.node:
        if node.domain == "com.microsoft" and node.op_type in _TWINS:
            _TWINS[node.op_type](node)
    return twin


def _fix(entry: onnx.ValueInfoProto) -> None:
    """A free first axis is a batch of one."""
    tensor = entry.type.tensor_type
    where = f"its input '{entry.name}'"
    if not tensor.HasField("shape"):
        raise UsageError(f"the number of axes of {where} is free", hint="write its shape into the graph")
    for axis, dim in enumerate(tensor.shape.dim):
        if dim.dim_value > 0:
            continue
        if axis > 0:
            raise UsageError(
                f"axis {axis} of {where} is free ({dim.dim_param or '?'}), and with it the work",
                hint="write a size into the graph",
            )
        dim.dim_value = 1


def _become(op_type: str, *kept: int, drop: tuple[str, ...] = ()) -> Callable[[onnx.NodeProto], None]:
    """Turns a node into a standard one that takes some of its inputs."""

    def turn(node: onnx.NodeProto) -> None:
        inputs = [node.input[index] for index in kept if index < len(node.input)]
        attributes = [entry for entry in node.attribute if entry.name not in drop and op_type != "Identity"]
        _replace(node, op_type, inputs, attributes)

    return turn


def _concat(node: onnx.NodeProto) -> None:
    """QLinearConcat takes its own scale and zero point, then tensor, scale and zero point of each part."""
    _replace(node, "Concat", list(node.input[2::3]), list(node.attribute))


def _replace(
    node: onnx.NodeProto, op_type: str, inputs: list[str], attributes: list[onnx.AttributeProto]
) -> None:
    node.op_type, node.domain = op_type, ""
    del node.input[:]
    node.input.extend(inputs)
    copies = [onnx.AttributeProto.FromString(entry.SerializeToString()) for entry in attributes]
    del node.attribute[:]
    node.attribute.extend(copies)


_FUSED = ("activation", "activation_params", "activation_alpha", "activation_beta", "activation_gamma")
_TWINS: Mapping[str, Callable[[onnx.NodeProto], None]] = {
    "QuantizeLinear": _become("QuantizeLinear", 0, 1, 2),
    "DequantizeLinear": _become("DequantizeLinear", 0, 1, 2),
    "QLinearAdd": _become("Add", 0, 3),
    "QLinearMul": _become("Mul", 0, 3),
    "QLinearConcat": _concat,
    "QLinearGlobalAveragePool": _become("GlobalAveragePool", 0, drop=("channels_last",)),
    "QLinearAveragePool": _become("AveragePool", 0, drop=("channels_last",)),
    "QGemm": _become("Gemm", 0, 3, drop=("alpha",)),
    "FusedConv": _become("Conv", 0, 1, 2, drop=_FUSED),
    "FusedGemm": _become("Gemm", 0, 1, 2, drop=_FUSED),
    **{
        name: _become("Identity", 0)
        for name in (
            *("QLinearSigmoid", "QLinearLeakyRelu", "QLinearSoftmax", "Gelu", "FastGelu", "QuickGelu"),
            *("BiasGelu", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
        )
    },
}
