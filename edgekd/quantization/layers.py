"""The layers of a quantized network, by the names that a scheme has for them, and who is next to whom.

A tensor between two int8 layers stays in int8 as long as one of them does: to let it pass in float, all
layers around it have to be in float.
"""

from __future__ import annotations

from torch import fx

from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.hard_swish import Int8HardSwish
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.operations import label_of, operation_of
from edgekd.quantization.place import INT8_OPERATIONS, layer_of


def sources_of(network: QuantizedNetwork) -> dict[str, frozenset[str]]:
    """Module of every quantizer and the tensors that it rounds, as `tensor_of` names them."""
    found: dict[str, frozenset[str]] = {}
    for node in _quantizer_nodes(network):
        if not node.kwargs.get("repeated"):
            found[str(node.target)] = found.get(str(node.target), frozenset()) | {
                node.all_input_nodes[0].name
            }
    return found


def rounded_tensors(network: QuantizedNetwork) -> frozenset[str]:
    """Tensors that are rounded, or said to be rounded once more behind reshaping, as `tensor_of` has them."""
    return frozenset(tensor_of(network, node) for node in _quantizer_nodes(network))


def tensor_of(network: QuantizedNetwork, quantized: fx.Node) -> str:
    """Name of the tensor that a quantizer's node reads; alike in every network prepared from the same one."""
    source = quantized.all_input_nodes[0]
    if _is_hard_swish(network, source):  # a function in float, a module in int8
        return f"hard_swish_{label_of(source)}".replace(".", "_")
    return source.name


def is_quantizer(network: QuantizedNetwork, node: fx.Node) -> bool:
    """Whether a node of the graph calls an activation's quantizer."""
    if node.op != "call_module":
        return False
    return isinstance(network.graph.get_submodule(str(node.target)), ActivationQuantizer)


def quantizer_at(network: QuantizedNetwork, path: str) -> ActivationQuantizer:
    """The quantizer with this path of a module."""
    quantizer = network.graph.get_submodule(path)
    assert isinstance(quantizer, ActivationQuantizer)
    return quantizer


def weight_bits_of(network: QuantizedNetwork) -> dict[str, int]:
    """Bits of every quantized weight, by its layer."""
    modules = network.graph.named_modules()
    return {path: module.bits for path, module in modules if isinstance(module, WeightQuantizer)}


def layers_of(network: QuantizedNetwork) -> tuple[str, ...]:
    """Layers that run in int8, in the order of the network."""
    nodes = [node for node in network.graph.graph.nodes if _is_layer(network, node)]
    return tuple(dict.fromkeys(_name(network, node) for node in nodes))


def layers_around(network: QuantizedNetwork, quantizer: str) -> frozenset[str]:
    """The layers that make or read the tensors of a quantizer's module."""
    nodes = [node for node in _quantizer_nodes(network) if node.target == quantizer]
    around = [*(user for node in nodes for user in node.users), *(_maker(network, node) for node in nodes)]
    return frozenset(_name(network, node) for node in around if _is_layer(network, node))


def _quantizer_nodes(network: QuantizedNetwork) -> list[fx.Node]:
    return [node for node in network.graph.graph.nodes if is_quantizer(network, node)]


def _name(network: QuantizedNetwork, node: fx.Node) -> str:
    return label_of(node) if _is_hard_swish(network, node) else layer_of(node)


def _is_hard_swish(network: QuantizedNetwork, node: fx.Node) -> bool:
    return operation_of(network.graph, node) in ("hard_swish", Int8HardSwish.__name__)


def _is_layer(network: QuantizedNetwork, node: fx.Node) -> bool:
    """Whether an operation has an int8 kernel, and reads nothing but codes."""
    operation = operation_of(network.graph, node)
    if operation in (WeightQuantizer.__name__, Int8HardSwish.__name__):
        return True
    if operation not in INT8_OPERATIONS:
        return False
    return all(is_quantizer(network, source) for source in node.all_input_nodes)


def _maker(network: QuantizedNetwork, quantized: fx.Node) -> fx.Node:
    """The operation that yields a tensor, past the activation function behind it."""
    node = quantized.all_input_nodes[0]
    before = node.all_input_nodes
    passes = len(before) == 1 and not is_quantizer(network, before[0]) and not _is_layer(network, node)
    return before[0] if passes else node
