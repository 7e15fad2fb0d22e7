"""The few edits that rewrites of a graph have in common."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import numpy_helper

from edgekd.conversion.graph_view import GraphView


def free_name(view: GraphView, stem: str) -> str:
    """`stem`, with a number after it where the graph already has such a tensor."""
    taken = {*view.producers, *view.initializers, *(entry.name for entry in view.graph.input)}
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    return name


def add_constant(view: GraphView, stem: str, value: np.ndarray) -> str:
    """Add an initializer to the graph, and to the view of it; returns its name."""
    name = free_name(view, stem)
    tensor = numpy_helper.from_array(value, name)
    view.graph.initializer.append(tensor)
    view.initializers[name] = tensor
    return name


def replace_nodes(graph: onnx.GraphProto, nodes: Iterable[onnx.NodeProto]) -> None:
    """Give a graph these nodes, which may be its own; those that it had are no longer valid."""
    copies = []
    for node in nodes:
        copies.append(onnx.NodeProto())
        copies[-1].CopyFrom(node)
    del graph.node[:]
    graph.node.extend(copies)
