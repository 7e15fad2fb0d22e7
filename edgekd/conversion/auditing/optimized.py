"""The graph that ONNX Runtime runs after all its optimizations, and where each operator went in it.

Every node of the graph that was given is named with a number first; the runtime keeps names or builds new
ones from them ("fused <7>", "<7>_nhwc"), and where it does not, the tensor that the operator made or the
weight that it read leads on.
"""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx

from edgekd.conversion.graph_view import GraphView, is_weighted, label, views
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session

COMPUTES = re.compile(r"Conv|Gemm|MatMul|Attention|QkvTo|Einsum|LSTM|GRU|^RNN$")
"""Types that do a weighted operator's work."""
INT8 = re.compile(
    r"QLinear|QGemm|ConvInteger|MatMulInteger|DynamicQuantizeMatMul|DynamicQuantizeLSTM|QAttention|QMoE"
)
"""Types of the kernels that compute with codes."""
_HOLDS_WEIGHTS = re.compile(r"LSTM|GRU|RNN|DynamicQuantizeLSTM|MatMulNBits|QAttention|Einsum")
_FURTHEST = 8
"""How many operators the runtime may have merged into one behind a weighted operator."""


@dataclass(frozen=True)
class Operator:
    """A weighted operator of the graph that was given."""

    view: GraphView
    number: int
    node: onnx.NodeProto


@dataclass(frozen=True)
class Running:
    """A node of the graph that runs."""

    view: GraphView
    index: int
    node: onnx.NodeProto


def weighted_operators(model: onnx.ModelProto) -> Iterator[Operator]:
    """Every weighted operator, in the graph's order, those of If and Loop bodies last."""
    nodes = ((view, node) for view in views(model) for node in view.graph.node)
    for number, (view, node) in enumerate(nodes):
        if is_weighted(view, node) or _holds_weights(view, node):
            yield Operator(view, number, node)


def _holds_weights(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node that is neither convolution nor matrix product has weights of its own."""
    if len(node.input) < 2 or _HOLDS_WEIGHTS.fullmatch(node.op_type) is None:
        return False
    return any(view.is_constant(name) for name in node.input[:3] if name)


def numbered(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose nodes are named with their numbers, in the order of `views`."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for number, node in enumerate(node for view in views(copy) for node in view.graph.node):
        node.name = f"<{number}>"
    return copy


@dataclass(frozen=True)
class Optimized:
    """What runs, with the graph that it was made from."""

    given: onnx.ModelProto
    model: onnx.ModelProto

    @classmethod
    def of(cls, given: onnx.ModelProto, threads: int) -> Optimized:
        """Ask ONNX Runtime.

        Raises:
            ConversionError: it cannot load the graph; the message names the user's nodes.
        """
        with tempfile.TemporaryDirectory(prefix="edgekd-audit-") as folder:
            file = Path(folder) / "optimized.onnx"
            try:
                open_session(numbered(given), threads=threads, optimized=file)
            except ConversionError as error:
                raise ConversionError(with_names(error.message, given)) from None
            return cls(given, onnx.load(file))

    @cached_property
    def nodes(self) -> tuple[Running, ...]:
        """Every node that runs, those of If and Loop bodies last."""
        nodes = ((view, node) for view in views(self.model) for node in view.graph.node)
        return tuple(Running(view, index, node) for index, (view, node) in enumerate(nodes))

    @cached_property
    def counts(self) -> Counter[str]:
        """Types of the nodes that run, with their number."""
        return Counter(running.node.op_type for running in self.nodes)

    def runs_as(self, operator: Operator) -> Running | None:
        """The node that does a weighted operator's work; None when the runtime removed the operator."""
        if operator.number in self._by_number:
            return self._by_number[operator.number]
        for name in _downstream(operator.view, operator.node):
            if name in self._by_output:
                return self._by_output[name]
        weights = [name for name in operator.node.input[:2] if operator.view.is_constant(name)]
        return next((self._by_input[name] for name in weights if name in self._by_input), None)

    def given_for(self, node: onnx.NodeProto) -> tuple[tuple[GraphView, onnx.NodeProto], ...]:
        """The nodes of the graph that was given from which a node of the optimized graph was made."""
        numbers = [int(number) for number in re.findall(r"<(\d+)>", node.name)]
        if not numbers:
            made = (self._makers.get(name) for name in map(_given_tensor, (*node.output, node.name)))
            numbers = [number for number in made if number is not None][:1] or self._feeding(node)
        return tuple(self._given_nodes[number] for number in numbers if number < len(self._given_nodes))

    def _feeding(self, node: onnx.NodeProto) -> list[int]:
        """The given node whose result a reader of a new node reads: what the new one was expanded from."""
        for name in node.output:
            for reader in self._readers.get(name, []):
                for number in map(int, re.findall(r"<(\d+)>", reader.node.name)[:1]):
                    _, given = self._given_nodes[number]
                    made = self._makers.get(given.input[0]) if given.input else None
                    return [] if made is None else [made]
        return []

    def is_given(self, node: onnx.NodeProto) -> bool:
        """Whether a node was in the graph that was given, and not put there by the runtime."""
        return re.search(r"<\d+>", node.name) is not None

    def names_of(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """What the user calls the operators that a node of the optimized graph was made from."""
        return tuple(label(given) for _, given in self.given_for(node))

    @cached_property
    def _given_nodes(self) -> list[tuple[GraphView, onnx.NodeProto]]:
        return [(view, node) for view in views(self.given) for node in view.graph.node]

    @cached_property
    def _makers(self) -> dict[str, int]:
        nodes = enumerate(self._given_nodes)
        return {name: number for number, (_, node) in nodes for name in node.output if name}

    @cached_property
    def _readers(self) -> dict[str, list[Running]]:
        found: dict[str, list[Running]] = {}
        for one in self.nodes:
            for name in filter(None, one.node.input):
                found.setdefault(name, []).append(one)
        return found

    @cached_property
    def _computing(self) -> list[Running]:
        return [running for running in self.nodes if COMPUTES.search(running.node.op_type)]

    @cached_property
    def _by_number(self) -> dict[int, Running]:
        numbered = ((one, re.findall(r"<(\d+)>", one.node.name)) for one in self._computing)
        return {int(number): one for one, numbers in numbered for number in numbers}

    @cached_property
    def _by_output(self) -> dict[str, Running]:
        found: dict[str, Running] = {}
        for one in self._computing:
            found.update((_given_tensor(name), one) for name in one.node.output if name)
            found.setdefault(_given_tensor(one.node.name), one)
        return found

    @cached_property
    def _by_input(self) -> dict[str, Running]:
        return {name: one for one in self._computing for name in one.node.input if name}


def with_names(message: str, model: onnx.ModelProto) -> str:
    """A message of the runtime with the nodes' own names in the place of their numbers."""
    nodes = [node for view in views(model) for node in view.graph.node]

    def name(found: re.Match[str]) -> str:
        number = int(found[1])
        return label(nodes[number]) if number < len(nodes) else found[0]

    return re.sub(r"<(\d+)>", name, message)


def _given_tensor(name: str) -> str:
    """The tensor after which the runtime named a node in its own layout, or one widened to float32."""
    return re.sub(r"^InsertedPrecisionFreeCast_|_nchwc(_token_\d+)?$", "", name)


def _downstream(view: GraphView, node: onnx.NodeProto) -> Iterator[str]:
    """Tensors that the node in an operator's place may make: its own, then those of what may be merged."""
    name = node.output[0]
    for _ in range(_FURTHEST):
        yield name
        readers = view.consumers.get(name, [])
        if len(readers) != 1 or is_weighted(view, readers[0]) or not readers[0].output:
            return
        name = readers[0].output[0]
