"""Tensors of a graph that have one number of channels because operations tie them together.

A dense convolution begins a new group with its output, and reads another group with its input. What works
channel by channel (an activation, a pool, a depthwise convolution, the sum of two tensors) ties what it reads
to what it makes. Every other operation fixes what it touches, and so do the graph's input and output.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx

from edgekd.conversion.graph_view import GraphView, attribute

_CHANNELWISE = frozenset(
    {
        *("QuantizeLinear", "DequantizeLinear", "Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid"),
        *("HardSwish", "MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "Identity"),
    }
)
_JOINS = frozenset({"Add", "Mul"})


@dataclass(frozen=True)
class Filters:
    """The int8 filters (O, I, ...) of a convolution, with a scale for each, and a bias that is a constant."""

    node: onnx.NodeProto
    """The convolution."""
    dequantizer: onnx.NodeProto
    """The DequantizeLinear that opens the filters for this convolution alone."""
    codes: np.ndarray
    groups: int

    @property
    def outputs(self) -> int:
        """Channels that they make."""
        return len(self.codes)

    @property
    def inputs(self) -> int:
        """Channels that each of them reads."""
        return int(self.codes.shape[1])

    @property
    def depthwise(self) -> bool:
        """Whether each channel is read by one filter alone."""
        return self.groups == self.outputs > 1 and self.inputs == 1


def filters_of(view: GraphView, node: onnx.NodeProto) -> Filters | None:
    """The filters of a convolution of codes; None of any other node, and where a part of them is computed."""
    source = view.producer(node.input[1]) if node.op_type == "Conv" else None
    if source is None or source.op_type != "DequantizeLinear" or len(view.consumers[source.output[0]]) > 1:
        return None
    parts = [view.constant(name) for name in source.input]
    bias = view.constant(node.input[2]) if len(node.input) > 2 else np.zeros(0)
    if len(parts) != 3 or any(part is None for part in (*parts, bias)):
        return None
    codes, scale, _ = parts
    assert codes is not None
    assert scale is not None
    if codes.ndim < 3 or scale.shape != codes.shape[:1] or attribute(source, "axis", 1) != 0:
        return None
    return Filters(node, source, codes, attribute(node, "group", 1))


@dataclass(frozen=True)
class ChannelGroup:
    """One group."""

    root: str
    """The tensor that stands for it."""
    width: int
    """Its channels."""
    depthwise: bool
    """Whether a depthwise convolution is in it."""


class ChannelGroups:
    """The groups that dense convolutions make and nothing fixes, as disjoint sets of tensor names."""

    def __init__(self, view: GraphView) -> None:
        self._view = view
        self._parent: dict[str, str] = {}
        self._fixed = {entry.name for entry in (*view.graph.input, *view.graph.output)}
        self._depthwise: set[str] = set()
        self._made: dict[str, int] = {}
        for node in view.graph.node:
            self._read(node)

    def __iter__(self) -> Iterator[ChannelGroup]:
        fixed, depthwise = ({self.root(name) for name in names} for names in (self._fixed, self._depthwise))
        widths: dict[str, set[int]] = {}
        for name, width in self._made.items():
            widths.setdefault(self.root(name), set()).add(width)
        for root, found in widths.items():
            if root not in fixed and len(found) == 1:
                yield ChannelGroup(root, min(found), depthwise=root in depthwise)

    def root(self, name: str) -> str:
        """The tensor that stands for the group of a tensor."""
        while (parent := self._parent.get(name, name)) != name:
            name = parent
        return name

    def _read(self, node: onnx.NodeProto) -> None:
        active = [name for name in node.input if name and not self._view.is_constant(name)]
        filters = filters_of(self._view, node)
        if filters is not None and len(active) == 1 and (filters.groups == 1 or filters.depthwise):
            self._read_convolution(node, filters)
        elif node.op_type in _CHANNELWISE and len(active) == 1:
            self._tie(node.output[0], active[0])
        elif node.op_type in _JOINS and len(active) == len(node.input):
            self._tie(node.output[0], *active)
        elif active:
            self._fixed.update(active, node.output)

    def _read_convolution(self, node: onnx.NodeProto, filters: Filters) -> None:
        if filters.depthwise:
            self._tie(node.output[0], node.input[0])
            self._depthwise.add(node.output[0])
        else:
            self._made[node.output[0]] = filters.outputs

    def _tie(self, first: str, *others: str) -> None:
        for other in others:
            self._parent[self.root(other)] = self.root(first)
