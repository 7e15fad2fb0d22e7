"""The same graph in float, to measure a quantized graph against.

Operators on codes are written as their float operators between quantizers first, and then every quantizer is
taken out: weights are the values that their codes mean. A zero point at the least value of its type keeps a
result from being negative, so a Relu goes there in its place.

Sources: ONNX, operators QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger, DynamicQuantizeLinear;
onnxruntime docs/ContribOperators.md for the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edgekd.conversion.graph_view import GraphView, attribute, label, views
from edgekd.conversion.remove_quantizers import remove_quantizers
from edgekd.errors import ConversionError

_Nodes = Iterator[onnx.NodeProto]
_Form = Callable[["_Writer"], _Nodes]
_OWN = ("channels_last", "domain", "opset")
"""Attributes of the operators on codes that their float operators do not have."""


def float_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph without quantization; nodes keep their names.

    Args:
        model: with its weights inside, as read_graph leaves it, and without functions of its own.

    Raises:
        ConversionError: an operator on codes is in it that has no float form here, or the float weights do
            not fit into one ONNX file.
    """
    result = remove_quantizers(between_quantizers(model))
    for view in views(result):
        _check(view)
    return result


def between_quantizers(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of a graph with float operators between quantizers in the place of the operators on codes.

    Raises:
        ConversionError: one of them has no float form here.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for view in views(copy):
        _write_with_quantizers(view)
    return copy


def _write_with_quantizers(view: GraphView) -> None:
    """Replace the operators on codes of one graph by their float operators between quantizers."""
    if not any(node.op_type in _FORMS for node in view.graph.node):
        return
    nodes: list[onnx.NodeProto] = []
    for node in view.graph.node:
        form = _FORMS.get(node.op_type)
        nodes.extend([node] if form is None else form(_Writer(view, node)))
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del view.graph.node[:]
    view.graph.node.extend(copies)
    del view.graph.value_info[:]


class _Writer:
    """Writes the nodes that stand for one operator on codes; its tensors are named after its output."""

    def __init__(self, view: GraphView, node: onnx.NodeProto) -> None:
        self.view, self.node = view, node
        self._count = 0

    def input(self, index: int) -> str:
        """Name of an input; empty where it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def new_name(self) -> str:
        """A name that no tensor has."""
        self._count += 1
        return f"{self.node.output[0]}/float_{self._count}"

    def constant(self, value: np.ndarray) -> str:
        """Name of a new initializer."""
        name = self.new_name()
        self.view.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def opened(self, codes: int, scale: int, zero: int, axis: int = 1) -> tuple[onnx.NodeProto, str]:
        """A DequantizeLinear for an input, and what it makes."""
        parts = [self.input(codes), self.input(scale), *filter(None, [self.input(zero)])]
        name = self.new_name()
        return helper.make_node("DequantizeLinear", parts, [name], name=name, axis=axis), name

    def quantizer(self, source: str, scale: int, zero: int) -> onnx.NodeProto:
        """The QuantizeLinear that makes the operator's output."""
        parts = [source, self.input(scale), *filter(None, [self.input(zero)])]
        name = self.new_name()
        return helper.make_node("QuantizeLinear", parts, [self.node.output[0]], name=name)

    def operator(self, kind: str, inputs: list[str], output: str) -> onnx.NodeProto:
        """The float operator, with the attributes and the name of the one on codes."""
        made = helper.make_node(kind, inputs, [output], name=label(self.node))
        made.attribute.extend(entry for entry in self.node.attribute if entry.name not in _OWN)
        return made

    def ends(self, made: str, scale: int, zero: int) -> _Nodes:
        """The quantizer of the output, behind a Relu where the codes start at zero."""
        zero_point = self.view.constant(self.input(zero)) if self.input(zero) else None
        if (
            zero_point is not None
            and zero_point.size
            and zero_point.flat[0] == np.iinfo(zero_point.dtype).min
        ):
            positive = self.new_name()
            yield helper.make_node("Relu", [made], [positive], name=positive)
            made = positive
        yield self.quantizer(made, scale, zero)

    def bias(self, codes: str, scales: tuple[int, int]) -> str:
        """An int32 bias as a float constant; `scales` are the inputs that hold those of input and weight."""
        values = [self.view.constant(name) for name in (codes, *(self.input(index) for index in scales))]
        if any(value is None for value in values):
            raise _no_form(self.node, "its bias or a scale is not a constant")
        bias, activation, weight = (np.asarray(value, np.float64) for value in values)
        return self.constant((bias * activation.reshape(()) * weight.reshape(-1)).astype(np.float32))


def _conv(write: _Writer) -> _Nodes:
    if attribute(write.node, "channels_last", 0):
        raise _no_form(write.node, "its channels come last")
    source, x = write.opened(0, 1, 2)
    weight, w = write.opened(3, 4, 5, axis=0)
    bias = [write.bias(write.input(8), (1, 4))] if write.input(8) else []
    made = write.new_name()
    yield from (source, weight, write.operator("Conv", [x, w, *bias], made))
    yield from write.ends(made, 6, 7)


def _matmul(write: _Writer) -> _Nodes:
    (left, a), (right, b) = write.opened(0, 1, 2), write.opened(3, 4, 5, axis=-1)
    made = write.new_name()
    yield from (left, right, write.operator("MatMul", [a, b], made), write.quantizer(made, 6, 7))


def _gemm(write: _Writer) -> _Nodes:
    source, x = write.opened(0, 1, 2)
    weight, w = write.opened(3, 4, 5, axis=0 if attribute(write.node, "transB", 0) else 1)
    bias = [write.bias(write.input(6), (1, 4))] if write.input(6) else []
    quantized = bool(write.input(7))
    made = write.new_name() if quantized else write.node.output[0]
    yield from (source, weight, write.operator("Gemm", [x, w, *bias], made))
    if quantized:
        yield from write.ends(made, 7, 8)


def _binary(kind: str) -> Callable[[_Writer], _Nodes]:
    def form(write: _Writer) -> _Nodes:
        (left, a), (right, b) = write.opened(0, 1, 2), write.opened(3, 4, 5)
        made = write.new_name()
        yield from (left, right, write.operator(kind, [a, b], made))
        yield from write.ends(made, 6, 7)

    return form


def _unary(kind: str) -> Callable[[_Writer], _Nodes]:
    def form(write: _Writer) -> _Nodes:
        if attribute(write.node, "channels_last", 0):
            raise _no_form(write.node, "its channels come last")
        source, x = write.opened(0, 1, 2)
        made = write.new_name()
        yield from (source, write.operator(kind, [x], made), write.quantizer(made, 3, 4))

    return form


def _concat(write: _Writer) -> _Nodes:
    parts = [write.opened(index, index + 1, index + 2) for index in range(2, len(write.node.input), 3)]
    made = write.new_name()
    yield from (node for node, _ in parts)
    yield write.operator("Concat", [name for _, name in parts], made)
    yield write.quantizer(made, 0, 1)


def _matmul_to_float(write: _Writer) -> _Nodes:
    (left, a), (right, b) = write.opened(0, 2, 4), write.opened(1, 3, 5, axis=-1)
    yield from (left, right)
    yield from _product(write, a, b, write.input(6))


def _dynamic_matmul(write: _Writer) -> _Nodes:
    weight, w = write.opened(1, 2, 3, axis=-1)
    yield weight
    yield from _product(write, write.input(0), w, write.input(4))


def _product(write: _Writer, a: str, b: str, bias: str) -> _Nodes:
    made = write.new_name() if bias else write.node.output[0]
    yield write.operator("MatMul", [a, b], made)
    if bias:
        yield helper.make_node("Add", [made, bias], [write.node.output[0]], name=f"{made}/bias")


def _dynamic_quantizer(write: _Writer) -> _Nodes:
    """The float tensor in the place of its codes, with 1 for its scale and 0 for its zero point."""
    codes, *parts = write.node.output
    yield helper.make_node("Identity", [write.input(0)], [codes], name=label(write.node))
    for name, value in zip(parts, (np.float32(1), np.uint8(0)), strict=False):
        write.view.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))


def _integer(kind: str) -> Callable[[_Writer], _Nodes]:
    """A product of codes: of the float tensor that took their place, and of the weight without its scale."""

    def form(write: _Writer) -> _Nodes:
        source = write.view.producer(write.input(0))
        if source is None or source.op_type != "DynamicQuantizeLinear":
            raise _no_form(write.node, "the scale of its input is not known")
        one = write.constant(np.asarray(1, np.float32))
        parts = [write.input(1), one, *filter(None, [write.input(3)])]
        weight = write.new_name()
        yield helper.make_node("DequantizeLinear", parts, [weight], name=weight, axis=0)
        yield write.operator(kind, [write.input(0), weight], write.node.output[0])

    return form


_FORMS: dict[str, Callable[[_Writer], _Nodes]] = {
    "QLinearConv": _conv,
    "QLinearMatMul": _matmul,
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearSoftmax": _unary("Softmax"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearConcat": _concat,
    "MatMulIntegerToFloat": _matmul_to_float,
    "DynamicQuantizeMatMul": _dynamic_matmul,
    "DynamicQuantizeLinear": _dynamic_quantizer,
    "ConvInteger": _integer("Conv"),
    "MatMulInteger": _integer("MatMul"),
}


def _check(view: GraphView) -> None:
    """Nothing on codes is left but what turns them into the graph's output."""
    for node in view.graph.node:
        on_codes = node.op_type.startswith(("QLinear", "DynamicQuantize", "QGemm", "QAttention"))
        left = node.op_type == "QuantizeLinear" and not view.is_output(node.output[0])
        if on_codes or left or node.op_type.endswith("Integer"):
            raise _no_form(node, "it computes with codes")


def _no_form(node: onnx.NodeProto, why: str) -> ConversionError:
    return ConversionError(f"{node.op_type} '{label(node)}' has no float form: {why}")
