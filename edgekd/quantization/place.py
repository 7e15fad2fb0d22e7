"""Where quantizers go: one a producer tensor, shared by all that read it.

- A tensor is quantized when an operation with an int8 kernel reads it: convolution, linear map, matmul,
  average pooling.
- Additions, products and concatenations of activations, sigmoid, leaky ReLU and HardSwish have such kernels
  too, and run in them where their operands hold codes anyway: where they come from a convolution, or
  something else reads them in int8; half of them are enough where the result is read in int8. Elsewhere, as
  between the linear maps and norms of a transformer, the quantizers that they would need cost more than they
  save.
- What those operations yield is quantized too, for ONNX Runtime runs them in int8 only between two
  quantizers; linear maps and matmuls need that only when something reads them in int8.
- After a ReLU rather than between it and its producer, when nothing else reads the producer.
- Pooling by maximum and reshaping keep codes as they are: the same quantizer is repeated behind them.
- An operation that the scheme names `float` has no quantizer of its own. The logits stay float.

Sources: TensorRT's guide on explicit quantization (quantize the skip input of a residual addition);
onnxruntime's selectors of quantized operators (both inputs and the output of an addition, one shared
quantizer); benchmarks/int8/speed.py for where an int8 kernel pays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

from torch import fx

from edgekd.documents.rewrites import resolve
from edgekd.documents.scheme import Scheme
from edgekd.quantization.operations import is_silu, is_tensor, label_of, operation_of, shape_of

_WEIGHTED = ("conv", "linear")
_POOLS = ("global_average_pool", "average_pool")
_SHAPERS = ("sigmoid", "leaky_relu", "hard_swish")
_JOINS = ("add", "mul", "cat")
INT8_OPERATIONS = (*_WEIGHTED, "matmul", *_POOLS, *_SHAPERS, *_JOINS)
"""Operations that have int8 kernels; a scheme may name any of them."""
_QUANTIZED_OUTPUT = ("conv", *_POOLS, *_SHAPERS, *_JOINS)
_KEEPS_CODES = ("max_pool", "reshape", "split", "getitem")
_NEVER_NEGATIVE = ("relu", "relu6", "sigmoid", "hardsigmoid", "softmax")
_KEEPS_SIGN = (*_KEEPS_CODES, *_POOLS, "cat", "add", "mul")


@dataclass
class Placement:
    """What to quantize in a graph, each in the graph's order."""

    weighted: list[fx.Node] = field(default_factory=list)
    """Convolutions and linear maps whose weight is quantized."""
    producers: dict[fx.Node, bool] = field(default_factory=dict)
    """Tensors that get a quantizer, and whether they are never negative."""
    repeats: dict[fx.Node, fx.Node] = field(default_factory=dict)
    """Tensors behind pooling or reshaping, and the producer whose quantizer is repeated there."""
    hard_swishes: list[fx.Node] = field(default_factory=list)
    """HardSwishes whose parts run in int8."""
    shared: dict[fx.Node, fx.Node] = field(default_factory=dict)
    """Producers without a quantizer of their own, and the one before them whose quantizer they use."""


def place(graph: fx.GraphModule, scheme: Scheme) -> Placement:
    """Placement for an annotated, canonical graph with batch norm folded."""
    return _Placing(graph, scheme).place()


def layer_of(node: fx.Node) -> str:
    """Name of an operation in a scheme: the path of its module, or where in the network it is."""
    return str(node.target) if node.op == "call_module" else label_of(node)


class _Placing:
    """One placement in the making."""

    def __init__(self, graph: fx.GraphModule, scheme: Scheme) -> None:
        self._operations = {node: operation_of(graph, node) for node in graph.graph.nodes}
        self._choices = resolve(scheme.rewrites)
        self._float = {layer for layer, precision in scheme.layers.items() if precision == "float"}
        self._active = _active(self._operations)
        self._of_silu = _of_silu(graph)
        self._in_int8: set[fx.Node] = set()
        self._producers: set[fx.Node] = set()
        self._placement = Placement()

    def place(self) -> Placement:
        """First the operations that always gain, then those that gain where codes are at hand."""
        for node, operation in self._operations.items():
            if operation in (*_WEIGHTED, *_POOLS) or (operation == "matmul" and self._wants_matmul):
                self._quantize(node)
        for node, operation in self._operations.items():
            if operation in (*_JOINS, *_SHAPERS) and self._gains(node):
                self._quantize(node)
        ordered = [node for node in self._operations if node in self._producers]
        self._placement.producers = {node: _never_negative(node, self._operations) for node in ordered}
        if self._choices["shared_concat_scale"]:
            self._share_scales()
        return self._placement

    @property
    def _wants_matmul(self) -> bool:
        return not self._choices["float_attention"]

    def _quantize(self, node: fx.Node) -> None:
        """Have an operation read codes, and yield them where that makes it run in int8."""
        operands = self._operands(node)
        if not operands:
            return
        if self._operations[node] in _WEIGHTED:
            self._placement.weighted.append(node)
        self._producers.update(self._source(operand) for operand in operands)
        if self._operations[node] in _QUANTIZED_OUTPUT and not _only_logits(node, self._operations):
            self._in_int8.add(node)
            self._producers.add(_behind_relu(node, self._operations))
            if self._operations[node] == "hard_swish":
                self._placement.hard_swishes.append(node)

    def _operands(self, node: fx.Node) -> list[fx.Node]:
        """The activations that an operation reads in int8; none when it has to stay in float."""
        if layer_of(node) in self._float:
            return []
        if self._operations[node] not in (*_JOINS, "matmul"):
            operands = [node.args[0]]
        elif node.kwargs.keys() - {"dim"}:
            return []
        else:
            operands = _joined(node, self._operations[node])
        nodes = [operand for operand in operands if isinstance(operand, fx.Node)]
        whole = len(nodes) == len(operands) and all(is_tensor(operand) for operand in nodes)
        return nodes if whole and all(operand in self._active for operand in nodes) else []

    def _source(self, node: fx.Node) -> fx.Node:
        """The tensor that holds the codes that `node` has, past pooling and reshaping; notes the way."""
        source, way = _past_reshaping(node, self._operations)
        self._placement.repeats.update(dict.fromkeys(way, source))
        return source

    def _gains(self, node: fx.Node) -> bool:
        """Whether an operation without a weight runs in int8."""
        operation, operands = self._operations[node], self._operands(node)
        if operation == "hard_swish" and not self._choices["int8_hard_swish"]:
            return False
        if not self._choices["int8_silu"] and node in self._of_silu:
            return False
        if not self._choices["float_sums"] or not operands:
            return True
        # A gate is small beside what it multiplies: quantizing it costs next to nothing.
        largest = max(prod(shape_of(operand)) for operand in operands)
        weighty = [x for x in operands if operation == "cat" or prod(shape_of(x)) == largest]
        coded = sum(prod(shape_of(x)) for x in weighty if self._holds_codes(x))
        whole = sum(prod(shape_of(x)) for x in weighty)
        # Where half of them come in float, and the result is wanted in codes, either way takes one quantizer.
        wanted = _behind_relu(node, self._operations) in self._producers
        return coded == whole or (wanted and 2 * coded >= whole)

    def _holds_codes(self, node: fx.Node) -> bool:
        source, _ = _past_reshaping(node, self._operations)
        if source in self._producers or source in self._in_int8:
            return True
        return self._operations[source] == "relu" and self._holds_codes(source.all_input_nodes[0])

    def _share_scales(self) -> None:
        """One quantizer for all tensors of a concatenation, and so for those of its neighbors."""
        for node in self._operations:
            if self._operations[node] == "cat" and node in self._in_int8:
                sources = [_past_reshaping(operand, self._operations)[0] for operand in self._operands(node)]
                self._share([*sources, _behind_relu(node, self._operations)])

    def _share(self, tensors: list[fx.Node]) -> None:
        shared, signs = self._placement.shared, self._placement.producers
        if len({signs[tensor] for tensor in tensors}) > 1:
            return
        owners = {shared.get(tensor, tensor) for tensor in tensors}
        first = next(node for node in signs if node in owners)
        together = {*tensors, *(node for node, owner in shared.items() if owner in owners), *owners}
        shared.update((node, first) for node in together if node is not first)


def _active(operations: Mapping[fx.Node, str]) -> set[fx.Node]:
    """Nodes whose tensor depends on the network's input, rather than on parameters alone."""
    active: set[fx.Node] = set()
    for node, operation in operations.items():
        holds_tensors = is_tensor(node) or operation == "split"
        if node.op == "placeholder" or (holds_tensors and not active.isdisjoint(node.all_input_nodes)):
            active.add(node)
    return active


def _joined(node: fx.Node, operation: str) -> list[Any]:
    return list(node.args[0]) if operation == "cat" else list(node.args[:2])  # type: ignore[arg-type]


def _past_reshaping(node: fx.Node, operations: Mapping[fx.Node, str]) -> tuple[fx.Node, list[fx.Node]]:
    """The tensor whose codes `node` has, and the tensors from `node` back to it."""
    way = []
    while operations[node] in _KEEPS_CODES:
        if is_tensor(node):
            way.append(node)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    return node, way


def _of_silu(graph: fx.GraphModule) -> set[fx.Node]:
    """The products of x * sigmoid(x), and the sigmoids that only they read."""
    products = {node for node in graph.graph.nodes if is_silu(graph, node)}
    inputs = {source for node in products for source in node.all_input_nodes}
    gates = {gate for gate in inputs if operation_of(graph, gate) == "sigmoid"}
    return products | {gate for gate in gates if len(gate.users) == 1}


def _behind_relu(node: fx.Node, operations: Mapping[fx.Node, str]) -> fx.Node:
    """The ReLU that alone reads a node, which then is one kernel with it; else the node."""
    users = list(node.users)
    fused = len(users) == 1 and operations[users[0]] == "relu" and operations[node] != "hard_swish"
    return users[0] if fused else node


def _only_logits(node: fx.Node, operations: Mapping[fx.Node, str]) -> bool:
    return all(
        operations[user] == "output" or (operations[user] in _KEEPS_CODES and _only_logits(user, operations))
        for user in node.users
    )


def _never_negative(node: fx.Node, operations: Mapping[fx.Node, str]) -> bool:
    if operations[node] in _NEVER_NEGATIVE:
        return True
    if operations[node] not in _KEEPS_SIGN:
        return False
    sources = node.all_input_nodes if operations[node] in _JOINS else [node.args[0]]
    return all(isinstance(source, fx.Node) and _never_negative(source, operations) for source in sources)
