"""From a float network to its folded graph, and from there to a network with fake quantizers.

    network --trace--> graph --canonicalize, fold--> fp32 graph --ReLU6 to ReLU, place quantizers--> quantized

The fp32 graph is what the fp32 artifact is exported from, so that both artifacts have one structure.
Only the quantized network loses its ReLU6: a teacher keeps the function that it was trained with, and a
student has none left when `replace_relu6` was called on it before its training.
"""

from __future__ import annotations

from torch import Tensor, fx, nn

from edgekd.documents.base import nearest
from edgekd.documents.scheme import Scheme
from edgekd.errors import UsageError
from edgekd.quantization.canonical import canonicalize, free_path, replace_with_relu, settle
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.fold import fold_batch_norm
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.operations import annotate, label_of
from edgekd.quantization.place import Placement, layer_of, place
from edgekd.quantization.trace import trace


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
    replace_with_relu(graph)
    annotate(graph, example_x)
    _check_layers(graph, scheme)
    placement = place(graph, scheme)
    paths = {node: _add_quantizer(graph, node, sign) for node, sign in placement.producers.items()}
    quantized = {node: _quantize(node, path) for node, path in paths.items()}
    for node, producer in placement.repeats.items():
        _repeat(node, quantized[producer])
    for node in placement.weighted:
        _quantize_weight(graph, node, placement, paths)
    settle(graph)
    return QuantizedNetwork(_compact(graph)).requires_grad_(True)


def _check_layers(graph: fx.GraphModule, scheme: Scheme) -> None:
    known = tuple(dict.fromkeys(layer_of(node) for node in graph.graph.nodes))
    unknown = [name for name in scheme.layers if name not in known]
    if unknown:
        problems = [f"there is no layer '{name}'{nearest(name, known)}" for name in unknown]
        message = "\n  ".join(["does not fit the network", *problems])
        raise UsageError(message, where="scheme.layers")


def _add_quantizer(graph: fx.GraphModule, node: fx.Node, non_negative: bool) -> str:
    label = "input" if node.op == "placeholder" else label_of(node)
    path = free_path(graph, f"quantizers.{label.replace('.', '_')}")
    number = path.removeprefix(f"quantizers.{label.replace('.', '_')}")
    quantizer = ActivationQuantizer(f"{label}{number}", non_negative=non_negative)
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


def _quantize_weight(
    graph: fx.GraphModule, node: fx.Node, placement: Placement, paths: dict[fx.Node, str]
) -> None:
    op = graph.get_submodule(str(node.target))
    if not isinstance(op, WeightQuantizer):
        graph.set_submodule(str(node.target), WeightQuantizer(op).to(op.weight.device))  # type: ignore[arg-type]
    source = node.args[0]
    assert isinstance(source, fx.Node)
    with graph.graph.inserting_before(node):
        amax = graph.graph.get_attr(f"{source.target}.amax")
    node.args = (source, amax)


def _compact(graph: fx.GraphModule) -> fx.GraphModule:
    """Only the modules and parameters that the graph uses."""
    return fx.GraphModule(graph, graph.graph, type(graph).__name__)
