"""Bytes that an operator, with all that is folded into it, reads and writes, in the types in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx

from edgekd.conversion.auditing.causes.lookup import LAYOUT, dequantizer_of
from edgekd.conversion.graph_view import GraphView
from edgekd.measure.prediction.kinds import ON_CODES, QUANTIZERS, WEIGHTED
from edgekd.measure.prediction.tensors import Tensors, bytes_for

_READ_A_PART = frozenset({"Shape", "Size", "Gather", "Slice", "Split"})
"""Operators that read no more than they write."""


def sources(view: GraphView, nodes: Sequence[onnx.NodeProto]) -> Iterator[tuple[str, onnx.NodeProto]]:
    """The tensors that a group reads from outside, each once, with the node that reads it.

    Scales and zero points of quantizers are left out, and what a batch norm folds into the weights.
    """
    seen = {name for node in nodes for name in node.output}
    for node in nodes:
        for name in _tensors_of(node, nodes[0].op_type in WEIGHTED):
            if name and name not in seen:
                seen.add(name)
                yield name, node


def _tensors_of(node: onnx.NodeProto, after_weighted: bool) -> Iterator[str]:
    if node.op_type in QUANTIZERS or (node.op_type == "BatchNormalization" and after_weighted):
        yield node.input[0]
    elif node.op_type == "QLinearConcat":
        yield from node.input[2::3]
    elif node.op_type in ON_CODES:
        yield from (node.input[index] for index in ON_CODES[node.op_type] if index < len(node.input))
    else:
        yield from node.input


def read_bytes(
    view: GraphView, tensors: Tensors, nodes: Sequence[onnx.NodeProto], on_codes: bool
) -> tuple[int, int]:
    """Bytes of constants and of activations that a group reads.

    One on codes reads what its DequantizeLinear operators open.
    """
    if nodes[0].op_type in _READ_A_PART:
        return 0, sum(tensors.bytes_of(name) for name in nodes[0].output)
    found = {True: 0, False: 0}
    for name, _ in sources(view, nodes):
        found[view.is_constant(name)] += _stored(view, tensors, name, on_codes)
    return found[True], found[False]


def written_bytes(tensors: Tensors, last: onnx.NodeProto) -> int:
    """Bytes that a group writes."""
    return sum(tensors.bytes_of(name) for name in last.output if name)


def _stored(view: GraphView, tensors: Tensors, name: str, on_codes: bool) -> int:
    """Bytes of a tensor as a group finds it: codes where it reads codes, floats where it does not."""
    elements = tensors.elements(name)
    opened = dequantizer_of(view, name) if on_codes else None
    if opened is None:
        return tensors.bytes_of(name)
    origin = _origin(view, opened.input[0])
    if elements is None:
        elements = tensors.elements(origin) or 0
    return bytes_for(elements, tensors.element_type(origin))


def _origin(view: GraphView, name: str) -> str:
    """Where codes come from: weights of 4 bits lie behind a Cast."""
    maker = view.producer(name)
    while maker is not None and view.is_constant(name) and maker.op_type in ("Cast", *LAYOUT):
        name = maker.input[0]
        maker = view.producer(name)
    return name
