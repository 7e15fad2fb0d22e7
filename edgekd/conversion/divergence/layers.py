"""The layers of a quantized graph: an operator and its activation, up to what a quantizer sees."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

import numpy as np
import onnx

from edgekd.conversion.divergence.probe import as_input, probe
from edgekd.conversion.divergence.skeleton import (
    MOVERS,
    TRANSPARENT,
    Skeleton,
    Tensor,
    plain,
    skeleton,
)
from edgekd.conversion.graph_view import GraphView, label
from edgekd.conversion.remove_quantizers import QuantizedTensor, quantized_tensors


@dataclass(frozen=True)
class Layer:
    """One layer."""

    tensors: tuple[str, ...]
    """What its operators make, in order; the last one is what the layer gives."""
    name: str
    """Its first operator's name."""
    operation: str
    """Types of its operators, such as `Conv + Relu`."""
    quantizers: tuple[QuantizedTensor, ...]
    """The quantizers of what it gives."""
    computes: bool
    """Whether it does more than put values elsewhere."""

    @property
    def end(self) -> str:
        """The tensor that it gives, before its quantizer."""
        return self.tensors[-1]


@dataclass(frozen=True)
class Candidate:
    """A quantized graph, its float form, and its layers."""

    model: onnx.ModelProto
    """The graph, without functions of its own."""
    view: GraphView
    """The same, indexed."""
    form: Skeleton
    """Its float form."""
    quantized: tuple[QuantizedTensor, ...]
    """Everything in it that has a quantizer."""
    layers: tuple[Layer, ...]
    """In the graph's order; the first is the input."""
    in_codes: frozenset[str]
    """Tensors of its float form that are moved in codes in the graph itself."""

    def is_codes(self, name: str) -> bool:
        """Whether a tensor of the graph holds codes."""
        node = self.view.producer(name)
        return name in self.in_codes or (node is not None and node.op_type == "QuantizeLinear")

    def read_as(self, made: str, position: int) -> str:
        """The tensor that the node which makes `made` really reads, where its float form reads a source.

        A DequantizeLinear with a scale of its own is a product in the float form: it reads no codes there.
        """
        node = self.view.producers[made]
        if node.op_type == "DequantizeLinear":
            return str(self.form.tensors[made].node.input[position])
        return str(node.input[position])


def open_candidate(model: onnx.ModelProto, x: np.ndarray, where: str) -> Candidate:
    """Take a graph apart.

    Args:
        model: any graph, with its weights inside.
        x: a few examples, by which shapes are found out.
        where: what errors call the graph.

    Raises:
        UsageError: the graph has no input, or several.
        ConversionError: it cannot be run.
    """
    model = plain(model)
    form = skeleton(model, x, where)
    quantized = quantized_tensors(model)
    layers, codes = tuple(_layers(form, quantized)), _in_codes(model, form, x)
    return Candidate(model, GraphView.of(model.graph), form, quantized, layers, codes)


def _in_codes(model: onnx.ModelProto, form: Skeleton, x: np.ndarray) -> frozenset[str]:
    made = {name for node in model.graph.node for name in node.output}
    look = probe(model, [name for name in form.tensors if name in made])
    values = look.run({form.input: as_input(x, look.session, form.input)})
    return frozenset(name for name, value in values.items() if value.dtype.kind in "iu")


def _layers(form: Skeleton, quantized: tuple[QuantizedTensor, ...]) -> list[Layer]:
    quantizers: dict[str, list[QuantizedTensor]] = {}
    for one in quantized:
        if one.quantizer is not None:
            quantizers.setdefault(one.name, []).append(one)
    chains = {form.input: [form.input]}
    for name, tensor in form.tensors.items():
        if _goes_on(form, tensor, chains, quantizers):
            end = tensor.sources[0][1]
            chains[name] = [*chains.pop(end), name]
        elif tensor.node.op_type not in TRANSPARENT:
            chains[name] = [name]
    order = {name: place for place, name in enumerate([form.input, *form.tensors])}
    found = sorted(chains.values(), key=lambda chain: order[chain[0]])
    return [_layer(form, chain, tuple(quantizers.get(chain[-1], ()))) for chain in found]


def _goes_on(form: Skeleton, tensor: Tensor, chains: Container[str], quantizers: Container[str]) -> bool:
    """Whether a tensor only follows the end of a layer, which nothing else reads."""
    if len(tensor.sources) != 1:
        return False
    end = tensor.sources[0][1]
    if end not in chains or end in quantizers or form.view.is_output(end):
        return False
    if end == form.input and tensor.node.op_type not in ("Pad", *TRANSPARENT):
        return False
    follows = form.is_tail(tensor.name) or tensor.node.op_type in TRANSPARENT
    return follows and len(form.readers(end)) == 1


def _layer(form: Skeleton, chain: list[str], quantizers: tuple[QuantizedTensor, ...]) -> Layer:
    if chain[0] == form.input:
        return Layer(tuple(chain), f"input '{form.input}'", "input", quantizers, computes=True)
    nodes = [form.tensors[name].node for name in chain]
    shown = [node for node in nodes if node.op_type not in TRANSPARENT]
    computes = any(node.op_type not in MOVERS for node in shown)
    operation = " + ".join(node.op_type for node in shown)
    return Layer(tuple(chain), label(nodes[0]), operation, quantizers, computes)
