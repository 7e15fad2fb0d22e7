"""Where quantizers go: one a producer tensor, shared by all that read it.

- A tensor is quantized when an operation with an int8 kernel reads it: convolution, linear map, matmul, the
  addition, product or concatenation of activations, average pooling, sigmoid, leaky ReLU.
- What those operations yield is quantized too, for ONNX Runtime runs them in int8 only between two
  quantizers; linear maps and matmuls need that only when something reads them in int8.
- After a ReLU rather than between it and its producer, when nothing else reads the producer.
- Pooling by maximum and reshaping keep codes as they are: the same quantizer is repeated behind them.
- The logits stay float.

Sources: TensorRT's guide on explicit quantization (quantize the skip input of a residual addition);
onnxruntime's selectors of quantized operators (both inputs and the output of an addition, one shared
quantizer).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import fx

from edgekd.documents.scheme import Scheme
from edgekd.quantization.operations import is_tensor, label_of, operation_of

_WEIGHTED = ("conv", "linear")
_JOINS = ("matmul", "add", "mul", "cat")
_SHAPERS = ("global_average_pool", "average_pool", "sigmoid", "leaky_relu")
_QUANTIZED_OUTPUT = ("conv", "add", "mul", "cat", *_SHAPERS)
_KEEPS_CODES = ("max_pool", "reshape", "split", "getitem")
_NEVER_NEGATIVE = ("relu", "sigmoid", "hardsigmoid", "softmax")
_KEEPS_SIGN = (*_KEEPS_CODES, "global_average_pool", "average_pool", "cat", "add", "mul")


@dataclass
class Placement:
    """What to quantize in a graph, each in the graph's order."""

    weighted: list[fx.Node] = field(default_factory=list)
    """Convolutions and linear maps whose weight is quantized."""
    producers: dict[fx.Node, bool] = field(default_factory=dict)
    """Tensors that get a quantizer, and whether they are never negative."""
    repeats: dict[fx.Node, fx.Node] = field(default_factory=dict)
    """Tensors behind pooling or reshaping, and the producer whose quantizer is repeated there."""


def place(graph: fx.GraphModule, scheme: Scheme | None = None) -> Placement:
    """Placement for an annotated, canonical graph with batch norm folded; all in int8 without a scheme."""
    floats = {name for name, precision in scheme.layers.items() if precision == "float"} if scheme else set()
    operations = {node: operation_of(graph, node) for node in graph.graph.nodes}
    active = _active(operations)
    producers: set[fx.Node] = set()
    placement = Placement()
    for node in operations:
        operands = [] if layer_of(node) in floats else _operands(node, operations, active)
        if not operands:
            continue
        if operations[node] in _WEIGHTED:
            placement.weighted.append(node)
        for operand in operands:
            producers.add(_producer(operand, operations, placement.repeats))
        if operations[node] in _QUANTIZED_OUTPUT and not _only_logits(node, operations):
            producers.add(_behind_relu(node, operations))
    placement.producers = {
        node: _never_negative(node, operations) for node in operations if node in producers
    }
    return placement


def layer_of(node: fx.Node) -> str:
    """Name of a node in schemes: the path of its module, or where in the network it is."""
    return str(node.target) if node.op == "call_module" else label_of(node)


def _active(operations: dict[fx.Node, str]) -> set[fx.Node]:
    """Nodes whose tensor depends on the network's input, rather than on parameters alone."""
    active: set[fx.Node] = set()
    for node, operation in operations.items():
        holds_tensors = is_tensor(node) or operation == "split"
        if node.op == "placeholder" or (holds_tensors and not active.isdisjoint(node.all_input_nodes)):
            active.add(node)
    return active


def _operands(node: fx.Node, operations: dict[fx.Node, str], active: set[fx.Node]) -> list[fx.Node]:
    """The activations that an operation reads in int8; none when it has to stay in float."""
    match operations[node]:
        case operation if operation in _WEIGHTED or operation in _SHAPERS:
            operands = [node.args[0]]
        case operation if operation in _JOINS and not node.kwargs.keys() - {"dim"}:
            operands = list(node.args[0]) if operation == "cat" else list(node.args[:2])  # type: ignore[arg-type]
        case _:
            return []
    joined = [operand for operand in operands if isinstance(operand, fx.Node)]
    whole = len(joined) == len(operands) and all(is_tensor(operand) for operand in joined)
    return joined if whole and all(operand in active for operand in joined) else []


def _producer(node: fx.Node, operations: dict[fx.Node, str], repeats: dict[fx.Node, fx.Node]) -> fx.Node:
    """The tensor that holds the codes that `node` has, past pooling and reshaping; notes the way."""
    way = []
    while operations[node] in _KEEPS_CODES:
        if is_tensor(node):
            way.append(node)
        source = node.args[0]
        assert isinstance(source, fx.Node)
        node = source
    repeats.update(dict.fromkeys(way, node))
    return node


def _behind_relu(node: fx.Node, operations: dict[fx.Node, str]) -> fx.Node:
    users = list(node.users)
    return users[0] if len(users) == 1 and operations[users[0]] == "relu" else node


def _only_logits(node: fx.Node, operations: dict[fx.Node, str]) -> bool:
    return all(
        operations[user] == "output" or (operations[user] in _KEEPS_CODES and _only_logits(user, operations))
        for user in node.users
    )


def _never_negative(node: fx.Node, operations: dict[fx.Node, str]) -> bool:
    if operations[node] in _NEVER_NEGATIVE:
        return True
    if operations[node] not in _KEEPS_SIGN:
        return False
    sources = node.all_input_nodes if operations[node] in _JOINS else [node.args[0]]
    return all(isinstance(source, fx.Node) and _never_negative(source, operations) for source in sources)
