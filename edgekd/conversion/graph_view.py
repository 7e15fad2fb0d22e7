"""A graph as its consumers want to see it: who makes a tensor, who reads it, which tensors are constant.

ONNX keeps a graph as a flat, sorted list of nodes; every rewrite, check and audit asks these questions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

WEIGHTED_OPS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""The standard operators that hold a network's weights: convolutions and matrix products."""
_WEIGHTED = re.compile(
    r"(QLinear|DynamicQuantize|Fused|Q)?(Conv|ConvTranspose|Gemm|MatMul)(Integer(ToFloat)?)?"
)
"""The same, and what a graph has in their place that was quantized or optimized before."""


@dataclass(frozen=True)
class GraphView:
    """One ONNX graph, indexed. `outer` is the graph around it when it is the body of an If or a Loop."""

    graph: onnx.GraphProto
    producers: dict[str, onnx.NodeProto]
    consumers: dict[str, list[onnx.NodeProto]]
    initializers: dict[str, onnx.TensorProto]
    constants: frozenset[str]
    outer: GraphView | None = None

    @classmethod
    def of(cls, graph: onnx.GraphProto, outer: GraphView | None = None) -> GraphView:
        """Index a graph."""
        producers = {name: node for node in graph.node for name in node.output if name}
        consumers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in filter(None, dict.fromkeys(node.input)):
                consumers.setdefault(name, []).append(node)
        initializers = {tensor.name: tensor for tensor in graph.initializer}
        inherited = outer.constants if outer is not None else frozenset()
        constants = _constants(graph, inherited | initializers.keys())
        return cls(graph, producers, consumers, initializers, constants, outer)

    def producer(self, name: str) -> onnx.NodeProto | None:
        """The node that makes a tensor, here or in the graph around."""
        if name in self.producers or self.outer is None:
            return self.producers.get(name)
        return self.outer.producer(name)

    def constant(self, name: str) -> np.ndarray | None:
        """Value of an initializer or of a Constant node that holds a tensor; None for anything else.

        A weight of 4 bits that a Cast widens to int8 is what the Cast makes of it. A tensor that was left in
        another file, or whose data do not fill its shape, has no value.
        """
        if name in self.initializers:
            return _value(self.initializers[name])
        node = self.producers.get(name)
        if node is not None and node.op_type == "Cast":
            return self._widened(node)
        if node is not None and node.op_type == "Constant":
            return _constant_value(node)
        return self.outer.constant(name) if node is None and self.outer is not None else None

    def _widened(self, cast: onnx.NodeProto) -> np.ndarray | None:
        packed = self.initializers.get(cast.input[0])
        if packed is None or packed.data_type != TensorProto.INT4:
            return None
        if attribute(cast, "to", TensorProto.UNDEFINED) != TensorProto.INT8:
            return None
        value = _value(packed)
        return None if value is None else value.astype(np.int8)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is the same in every run: a constant, or computed from constants alone."""
        return name in self.constants

    def is_output(self, name: str) -> bool:
        """Whether a tensor leaves the graph."""
        return any(output.name == name for output in self.graph.output)


def views(model: onnx.ModelProto) -> Iterator[GraphView]:
    """The graph of a model and every graph inside it (bodies of If, Loop, Scan), outermost first."""
    yield from _views(GraphView.of(model.graph))


def label(node: onnx.NodeProto) -> str:
    """How messages call a node: its name, or its type with its first output."""
    return node.name or f"{node.op_type} of '{node.output[0] if node.output else ''}'"


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """An integer attribute of a node."""
    for entry in node.attribute:
        if entry.name == name:
            return int(entry.i)
    return default


def _views(view: GraphView) -> Iterator[GraphView]:
    yield view
    for node in view.graph.node:
        for entry in node.attribute:
            for inner in [entry.g] if entry.type == onnx.AttributeProto.GRAPH else entry.graphs:
                yield from _views(GraphView.of(inner, view))


def _constants(graph: onnx.GraphProto, known: frozenset[str]) -> frozenset[str]:
    found = set(known)
    for node in graph.node:
        sources = [name for name in node.input if name]
        if node.op_type == "Constant" or (sources and found.issuperset(sources)):
            found.update(node.output)
    return frozenset(found)


def _value(tensor: TensorProto) -> np.ndarray | None:
    """What a tensor holds; nothing follows it to another file."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError):
        return None


def _constant_value(node: onnx.NodeProto) -> np.ndarray | None:
    for entry in node.attribute:
        match entry.name:
            case "value":
                return _value(entry.t)
            case "value_float":
                return np.array(entry.f, np.float32)
            case "value_int":
                return np.array(entry.i, np.int64)
            case "value_floats":
                return np.array(entry.floats, np.float32)
            case "value_ints":
                return np.array(entry.ints, np.int64)
    return None


def is_weighted(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node is a convolution, or a matrix product with a constant operand."""
    if _WEIGHTED.fullmatch(node.op_type) is None:
        return False
    if "Conv" in node.op_type:
        return True
    second = 3 if node.op_type in ("QLinearMatMul", "QGemm") else 1
    return any(view.is_constant(node.input[index]) for index in (0, second) if index < len(node.input))
