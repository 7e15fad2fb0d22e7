"""What is to be seen of a graph before it runs: how much of it is quantized, and in which way."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

import numpy as np
import onnx

from edgekd.conversion.divergence.grid import grid_of
from edgekd.conversion.divergence.layers import Candidate
from edgekd.conversion.graph_view import GraphView, views
from edgekd.conversion.remove_quantizers import codes_behind

_ON_CODES = re.compile(r"^(QLinear|QGemm|QAttention|DynamicQuantize)|Integer")


def notes_on(model: onnx.ModelProto, candidate: Candidate) -> Iterator[str]:
    """What a reader of the comparison should know of a graph, as given and taken apart, a line each."""
    yield from _quantized_share(candidate)
    yield from _on_codes(model)
    yield from _off_center(candidate)
    unread = [one for one in candidate.quantized if one.kind == "activation" and grid_of(one) is None]
    if unread:
        names = _some([one.name for one in unread])
        found = _count(len(unread), "quantizer")
        yield f"the scales of {found} cannot be judged: no whole codes with one scale ({names})"


def _quantized_share(candidate: Candidate) -> Iterator[str]:
    if not candidate.quantized:
        yield "it has no quantizers: it is compared as a graph in float"
        return
    form = candidate.form
    weighted = [name for name in form.tensors if form.is_weighted(name)]
    floats = [name for name in weighted if not _reads_codes(candidate, name)]
    if floats and weighted:
        done = len(weighted) - len(floats)
        names = _some([form.tensors[name].node.name or name for name in floats])
        share = f"{done} of its {len(weighted)} weighted operators"
        yield f"{share} read a quantized input and weight; not so {names}"


def _reads_codes(candidate: Candidate, made: str) -> bool:
    """Whether the operator that makes a tensor reads both its operands from codes."""
    node = candidate.view.producers[made]
    return all(_opened(candidate.view, name) for name in node.input[:2])


def _opened(view: GraphView, name: str) -> bool:
    """Whether a tensor comes from a DequantizeLinear, past what only moves it."""
    node = view.producer(name)
    while node is not None and node.op_type in ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten"):
        node = view.producer(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def _on_codes(model: onnx.ModelProto) -> Iterator[str]:
    """Operators that compute with codes themselves."""
    nodes = [node for view in views(model) for node in view.graph.node]
    found = Counter(node.op_type for node in nodes if _ON_CODES.search(node.op_type))
    if found:
        names = ", ".join(f"{count} {name}" for name, count in sorted(found.items()))
        yield f"its operators on codes ({names}) are looked into as float ones between quantizers"


def _off_center(candidate: Candidate) -> Iterator[str]:
    """Weights whose zero point is not the middle of their codes."""
    names = []
    for one in candidate.quantized:
        if one.kind == "constant" and one.quantizer is None:
            (node,) = one.dequantizers
            if _is_off_center(one.view, node):
                names.append(one.name)
    if names:
        found = _count(len(names), "weight")
        yield f"{found} with a zero point off the middle, which TensorRT refuses: {_some(names)}"


def _is_off_center(view: GraphView, node: onnx.NodeProto) -> bool:
    codes = codes_behind(view, node)
    given = view.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if codes is None or codes.ndim < 2 or codes.dtype not in (np.int8, np.uint8):
        return False
    middle = 128 if codes.dtype == np.uint8 else 0
    return bool((given != middle).any()) if given is not None else middle != 0


def _count(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count} {what}s"


def _some(names: list[str], most: int = 3) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(f"'{name}'" for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
