"""The float form of a graph, and in it the tensors that two graphs of one network have in common.

A graph's quantizers are taken out; what stays are its operators as they compute in float. Of their
tensors those are kept that hold floats and depend on the graph's input: shapes, indices and weights are
none.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, inliner

from edgekd.conversion.divergence.probe import Values, as_input, input_of, probe
from edgekd.conversion.edit_graph import replace_nodes
from edgekd.conversion.float_graph import between_quantizers
from edgekd.conversion.graph_view import GraphView, attribute, is_weighted, label
from edgekd.conversion.remove_quantizers import remove_quantizers
from edgekd.errors import ConversionError, UsageError

TRANSPARENT = frozenset({"Identity", "Dropout", "Cast"})
"""Operators that hand a tensor on."""
TAILS = frozenset({"Relu", "Clip", "LeakyRelu", "PRelu", "BatchNormalization", "Add", "Mul"})
"""Operators that belong to what they follow; Add and Mul where the other operand is a constant."""
_KINDS = {
    "BatchNormalization": "affine",
    **dict.fromkeys(("Relu", "Clip"), "rectifier"),
    **dict.fromkeys(("Gemm", "MatMul"), "product"),
    **dict.fromkeys(("GlobalAveragePool", "ReduceMean", "AveragePool"), "mean"),
    **dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), "reshape"),
}
"""Operators that may stand for each other: their shapes and their values decide."""
MOVERS = frozenset(
    {
        *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Expand"),
        *("MaxPool", "DepthToSpace", "SpaceToDepth", "Pad", "Tile", "Concat"),
    }
)
"""Operators that put values elsewhere and compute none."""


@dataclass(frozen=True)
class Tensor:
    """A float tensor that depends on the graph's input."""

    name: str
    node: onnx.NodeProto
    """What makes it."""
    shape: tuple[int, ...]
    """Its shape for the examples that the form was made with."""
    dtype: np.dtype[Any]
    """Its float type."""
    sources: tuple[tuple[int, str], ...]
    """The tensors of the same kind that its node reads, with the position of each among the node's inputs."""

    @property
    def stem(self) -> str:
        """The node's name without the number that makes it unique: the path of its module and its type."""
        return re.sub(r"_\d+$", "", self.node.name)


@dataclass(frozen=True)
class Skeleton:
    """The float form of a graph."""

    model: onnx.ModelProto
    """The graph without its quantizers."""
    view: GraphView
    """The same, indexed."""
    input: str
    """Name of the graph's input."""
    tensors: dict[str, Tensor]
    """By name, in the order of the graph."""

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """The nodes that read the values of a tensor, rather than its shape alone."""
        known = self.view.consumers.get(name, [])
        return [node for node in known if any(one in self.tensors for one in node.output)]

    def is_tail(self, name: str) -> bool:
        """Whether a tensor is made by an operator that belongs to what it follows."""
        tensor = self.tensors[name]
        if tensor.node.op_type == "Pad":
            return self._pads_channels(tensor)
        if tensor.node.op_type not in TAILS or len(tensor.sources) != 1:
            return False
        return all(
            self.view.is_constant(name)
            for position, name in enumerate(tensor.node.input)
            if name and position != tensor.sources[0][0]
        )

    def _pads_channels(self, tensor: Tensor) -> bool:
        """Whether a Pad only adds channels, as kernels want them."""
        pads = self.view.constant(tensor.node.input[1]) if len(tensor.node.input) > 1 else None
        rank = len(tensor.shape)
        return pads is not None and len(pads) == 2 * rank and not np.delete(pads, [1, rank + 1]).any()

    def kind(self, name: str) -> str:
        """What sort of operator makes a tensor; those of one kind may stand for each other."""
        node = self.tensors[name].node
        if node.op_type == "Conv" and self._is_affine(node):
            return "affine"
        return _KINDS.get(node.op_type) or f"{node.domain}:{node.op_type}"

    def _is_affine(self, node: onnx.NodeProto) -> bool:
        """Whether a convolution is a factor and an offset for each channel, as a batch norm is."""
        weight = next((w for w in constants_of(self, [node.input[1]]).values()), None)
        return weight is not None and weight.size == weight.shape[0] == attribute(node, "group", 1)

    def is_weighted(self, name: str) -> bool:
        """Whether a tensor is made by a convolution or a matrix product with a constant."""
        return is_weighted(self.view, self.tensors[name].node)


def plain(model: onnx.ModelProto) -> onnx.ModelProto:
    """The graph in the spelling that both sides are compared in.

    The bodies of its own functions stand in the place of their calls, float operators between quantizers in
    that of operators on codes, and x * HardSigmoid(x) in that of HardSwish, as quantized graphs have it.
    """
    model = inliner.inline_local_functions(model) if model.functions else model
    with contextlib.suppress(ConversionError):  # then its layers are not compared, which is said
        model = between_quantizers(model)
    if not any(node.op_type == "HardSwish" for node in model.graph.node):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    replace_nodes(copy.graph, [part for node in model.graph.node for part in _spelled_out(node)])
    return copy


def _spelled_out(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    if node.op_type != "HardSwish":
        return [node]
    source, gate, name = node.input[0], f"{node.output[0]}/gate", node.name.removesuffix("HardSwish")
    return [
        helper.make_node("HardSigmoid", [source], [gate], name=f"{name}HardSigmoid", alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [source, gate], [node.output[0]], name=f"{name}Mul"),
    ]


def skeleton(model: onnx.ModelProto, x: np.ndarray, where: str) -> Skeleton:
    """The float form of a graph.

    Args:
        model: as `plain` leaves it.
        x: a few examples, by which shapes are found out.
        where: what errors call the graph.

    Raises:
        UsageError: the graph has no input, or several, or computes nothing of it.
        ConversionError: it cannot be run.
    """
    bare = remove_quantizers(model)
    view = GraphView.of(bare.graph)
    source = input_of(bare, where).name
    active = _active(bare.graph, source)
    made = [name for node in bare.graph.node for name in node.output if name in active]
    if not made:
        raise UsageError("computes nothing of its input", where=where)
    try:
        prober = probe(bare, made)
        values = prober.run({source: as_input(x, prober.session, source)})
    except ConversionError as error:
        raise ConversionError(error.message, where=where) from None
    floats = {name: value for name, value in values.items() if _is_float(value)}
    known = floats.keys() | {source}
    tensors = {
        name: Tensor(name, node, floats[name].shape, floats[name].dtype, _sources(node, known))
        for node in bare.graph.node
        for name in node.output
        if name in floats
    }
    return Skeleton(bare, view, source, tensors)


def constants_of(form: Skeleton, names: Iterator[str] | list[str]) -> Values:
    """Values of constants of a float form, those that are computed from other constants included."""
    found: Values = {}
    computed = []
    for name in dict.fromkeys(names):
        value = form.view.constant(name)
        if value is not None:
            found[name] = value
        elif form.view.is_constant(name) and name in form.view.producers and name not in form.tensors:
            computed.append(name)
    return {**found, **_computed(form, computed)}


def _computed(form: Skeleton, names: list[str]) -> Values:
    if not names:
        return {}
    part = onnx.ModelProto()
    part.CopyFrom(form.model)
    del part.graph.input[:]
    active = _active(form.model.graph, form.input)
    nodes = [node for node in form.model.graph.node if active.isdisjoint(node.output)]
    del part.graph.node[:]
    part.graph.node.extend(nodes)
    return probe(part, names).run({})


def _active(graph: onnx.GraphProto, source: str) -> set[str]:
    """Tensors that depend on the input, through any operator."""
    active = {source}
    for node in graph.node:
        if not active.isdisjoint(reads(node)):
            active.update(filter(None, node.output))
    return active


def reads(node: onnx.NodeProto) -> set[str]:
    """What a node reads, the graphs inside it included."""
    names = set(filter(None, node.input))
    for entry in node.attribute:
        for inner in [entry.g] if entry.type == onnx.AttributeProto.GRAPH else entry.graphs:
            names.update(name for other in inner.node for name in reads(other))
    return names


def _sources(node: onnx.NodeProto, known: set[str]) -> tuple[tuple[int, str], ...]:
    return tuple((position, name) for position, name in enumerate(node.input) if name in known)


def _is_float(value: object) -> bool:
    return isinstance(value, np.ndarray) and np.issubdtype(value.dtype, np.floating) and value.ndim > 0


def name_of(tensor: Tensor) -> str:
    """What people call the operator that makes a tensor."""
    return label(tensor.node)
