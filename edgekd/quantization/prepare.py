"""From a float network to its folded graph, and from there to a network with fake quantizers.

    network --trace--> graph --canonicalize, fold--> fp32 graph --ReLU6 to ReLU, place quantizers--> quantized

The fp32 graph is what the fp32 artifact is exported from, so that both artifacts have one structure.
Only the quantized network loses its ReLU6: a teacher keeps the function that it was trained with, and a
student has none left when `replace_relu6` was called on it before its training.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx, nn

from edgekd.documents.base import nearest
from edgekd.documents.scheme import Scheme
from edgekd.errors import UsageError
from edgekd.quantization.canonical import canonicalize, free_path, settle
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.fold import fold_batch_norm
from edgekd.quantization.hard_swish import Int8HardSwish
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.operations import annotate, label_of, operation_of
from edgekd.quantization.place import layer_of, place
from edgekd.quantization.rewrites import apply_rewrites
from edgekd.quantization.scheme import WeightBits
from edgekd.quantization.trace import attribute_of, trace

_WEIGHTED = ("conv", "linear")


def fold_network(network: nn.Module, example_x: Tensor) -> fx.GraphModule:
    """The network in evaluation, float32, batch norm folded, any batch size; the same function as before.

    Args:
        network: takes one tensor (B, ...) and returns logits (B, K); it is left as it is.
        example_x: a batch (B, ...) on the network's device.

    Raises:
        NetworkError: the network cannot be traced (names the module and the line).
    """
    graph = trace(network, example_x)
    canonicalize(graph, example_x)
    annotate(graph, example_x)
    fold_batch_norm(graph)
    annotate(graph, example_x)
    return _compact(graph)


def prepare(network: nn.Module, example_x: Tensor, scheme: Scheme | None = None) -> QuantizedNetwork:
    """A copy of the network, folded, with fake quantizers in place and all of them off.

    Args:
        network: takes one tensor (B, ...) and returns logits (B, K); it is left as it is.
        example_x: a batch (B, ...) on the network's device.
        scheme: how it is quantized; int8 throughout when not given.

    Raises:
        NetworkError: the network cannot be traced (names the module and the line).
        UsageError: the scheme names layers that the network does not have.
    """
    scheme = scheme or Scheme()
    graph = fold_network(network, example_x)
    apply_rewrites(graph, example_x, scheme.rewrites)
    annotate(graph, example_x)
    _check_layers(graph, scheme)
    placement = place(graph, scheme)
    learned = scheme.scales == "learned"
    own = {node: sign for node, sign in placement.producers.items() if node not in placement.shared}
    paths = {node: _add_quantizer(graph, node, sign, learned=learned) for node, sign in own.items()}
    paths |= {node: paths[owner] for node, owner in placement.shared.items()}
    quantized = {node: _quantize(node, path) for node, path in paths.items()}
    for node, producer in placement.repeats.items():
        _repeat(node, quantized[producer])
    for node in placement.hard_swishes:
        _write_in_int8(graph, node)
    bits = _bits_of(graph, scheme)
    for node in placement.weighted:
        _quantize_weight(graph, node, bits[str(node.target)], learned=learned)
    settle(graph)
    return QuantizedNetwork(_compact(graph)).requires_grad_(True)


def _check_layers(graph: fx.GraphModule, scheme: Scheme) -> None:
    known = tuple(dict.fromkeys(layer_of(node) for node in graph.graph.nodes))
    unknown = [name for name in scheme.layers if name not in known]
    if unknown:
        problems = [f"there is no layer '{name}'{nearest(name, known)}" for name in unknown]
        message = "\n  ".join(["does not fit the network", *problems])
        raise UsageError(message, where="scheme.layers")


def _bits_of(graph: fx.GraphModule, scheme: Scheme) -> dict[str, WeightBits]:
    """Bits of every layer's weight, by its name.

    The ends are the first and the last layer that sum over inputs; a batch norm that became a factor for
    each channel is exact in any number of bits.
    """
    layers = [str(node.target) for node in graph.graph.nodes if operation_of(graph, node) in _WEIGHTED]
    summing = [name for name in layers if attribute_of(graph, f"{name}.weight")[0].numel() > 1]
    ends = (*summing[:1], *summing[-1:]) if scheme.ends_8bit else ()

    def bits_of(name: str) -> WeightBits:
        usual = "int4" if scheme.weight_bits == 4 and name not in ends else "int8"
        if scheme.layers.get(name, usual) == "int4":
            return 4
        return 7 if scheme.reduce_range else 8

    return {name: bits_of(name) for name in layers}


def _add_quantizer(graph: fx.GraphModule, node: fx.Node, non_negative: bool, *, learned: bool) -> str:
    label = "input" if node.op == "placeholder" else label_of(node)
    path = free_path(graph, f"quantizers.{label.replace('.', '_')}")
    number = path.removeprefix(f"quantizers.{label.replace('.', '_')}")
    quantizer = ActivationQuantizer(f"{label}{number}", non_negative=non_negative, learned=learned)
    graph.add_submodule(path, quantizer.to(next(graph.parameters()).device))
    return path


def _quantize(node: fx.Node, path: str) -> fx.Node:
    with node.graph.inserting_after(node):
        quantized = node.graph.call_module(path, (node,))
    quantized.meta = dict(node.meta)
    node.replace_all_uses_with(quantized, lambda user: user is not quantized and user.op != "output")
    return quantized


def _repeat(node: fx.Node, quantized: fx.Node) -> None:
    with node.graph.inserting_after(node):
        repeated = node.graph.call_module(str(quantized.target), (node,), {"repeated": True})
    repeated.meta = dict(node.meta)
    node.replace_all_uses_with(repeated, lambda user: user is not repeated and user.op != "output")


def _write_in_int8(graph: fx.GraphModule, node: fx.Node) -> None:
    """Put the HardSwish of the int8 kernels in the place of one."""
    path = free_path(graph, f"{label_of(node)}.int8")
    graph.add_submodule(path, Int8HardSwish().to(next(graph.parameters()).device))
    with graph.graph.inserting_before(node):
        parts = graph.graph.call_module(path, (node.args[0],))
    parts.meta = dict(node.meta)
    node.replace_all_uses_with(parts)
    graph.graph.erase_node(node)


def _quantize_weight(graph: fx.GraphModule, node: fx.Node, bits: WeightBits, *, learned: bool) -> None:
    op: Any = graph.get_submodule(str(node.target))
    if not isinstance(op, WeightQuantizer):  # it is one already where the layer is called a second time
        quantizer = WeightQuantizer(op, bits=bits, learned=learned).to(op.weight.device)
        graph.set_submodule(str(node.target), quantizer)
    source = node.args[0]
    assert isinstance(source, fx.Node)
    with graph.graph.inserting_before(node):
        amax = graph.graph.get_attr(f"{source.target}.amax")
    node.args = (source, amax)


def _compact(graph: fx.GraphModule) -> fx.GraphModule:
    """Only the modules and parameters that the graph uses."""
    return fx.GraphModule(graph, graph.graph, type(graph).__name__)
