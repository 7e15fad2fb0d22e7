"""The layers of a quantized network, by the names that a scheme has for them, and who is next to whom.

A tensor between two int8 layers stays in int8 as long as one of them does: to let it pass in float, all
layers around it have to be in float.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import fx

from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.place import layer_of


def sources_of(network: QuantizedNetwork) -> dict[str, frozenset[str]]:
    """Module of every quantizer and the nodes whose tensors it rounds.

    A node is named alike in every network that is prepared from the same one, a module is not.
    """
    found: dict[str, frozenset[str]] = {}
    for node in _quantizer_nodes(network):
        if not node.kwargs.get("repeated"):
            found[str(node.target)] = found.get(str(node.target), frozenset()) | {
                node.all_input_nodes[0].name
            }
    return found


def quantizer_at(network: QuantizedNetwork, path: str) -> ActivationQuantizer:
    """The quantizer with this path of a module."""
    quantizer = network.graph.get_submodule(path)
    assert isinstance(quantizer, ActivationQuantizer)
    return quantizer


def weight_bits_of(network: QuantizedNetwork) -> dict[str, int]:
    """Bits of every quantized weight, by its layer."""
    modules = network.graph.named_modules()
    return {path: module.bits for path, module in modules if isinstance(module, WeightQuantizer)}


def readers_of(network: QuantizedNetwork) -> tuple[str, ...]:
    """Layers that read a quantized tensor, in the order of the graph."""
    nodes = [node for each in _quantizer_nodes(network) for node in _readers(network, each)]
    order = {node: index for index, node in enumerate(network.graph.graph.nodes)}
    return tuple(dict.fromkeys(layer_of(node) for node in sorted(set(nodes), key=order.__getitem__)))


def layers_around(network: QuantizedNetwork, quantizer: str) -> frozenset[str]:
    """The layers that make or read the tensors of a quantizer's module."""
    nodes = [node for node in _quantizer_nodes(network) if node.target == quantizer]
    around = {layer_of(reader) for node in nodes for reader in _readers(network, node)}
    return frozenset(around | {layer_of(maker) for node in nodes for maker in _maker(network, node)})


def _quantizer_nodes(network: QuantizedNetwork) -> list[fx.Node]:
    return [node for node in network.graph.graph.nodes if _is_quantizer(network, node)]


def _is_quantizer(network: QuantizedNetwork, node: fx.Node) -> bool:
    if node.op != "call_module":
        return False
    return isinstance(network.graph.get_submodule(str(node.target)), ActivationQuantizer)


def _readers(network: QuantizedNetwork, quantized: fx.Node) -> Iterator[fx.Node]:
    """Operations that read codes; reshaping and pooling by maximum only hand them on."""
    for user in quantized.users:
        if not any(_is_quantizer(network, after) and after.kwargs.get("repeated") for after in user.users):
            yield user


def _maker(network: QuantizedNetwork, quantized: fx.Node) -> Iterator[fx.Node]:
    """The operation that yields a tensor, past the activation function behind it, where it reads codes."""
    node = quantized.all_input_nodes[0]
    while len(node.all_input_nodes) == 1 and not _is_quantizer(network, node.all_input_nodes[0]):
        node = node.all_input_nodes[0]
    if any(_is_quantizer(network, source) for source in node.all_input_nodes):
        yield node
