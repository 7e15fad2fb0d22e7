"""What each node of the optimized graph is there for: weighted operators, float islands, quantizers, layout.

An island is a connected set of operators without weights that run in float in a quantized graph. A quantizer
belongs to the island, or to the float operator, for which the runtime left it: with it goes its time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import onnx

from edgekd.conversion.auditing.causes.lookup import UNFOLDED_ACTIVATIONS
from edgekd.conversion.auditing.optimized import INT8, Optimized, Running
from edgekd.conversion.graph_view import GraphView
from edgekd.documents.audit import Bucket

Kind = Literal["codes", "float", "other"]
"""What a tensor holds: codes of 8 bits, floats, or neither (indices, shapes, truth)."""

_OPENS = frozenset({"DequantizeLinear"})
_MAKES_CODES = frozenset({"QuantizeLinear", "DynamicQuantizeLinear"})
QUANTIZERS = _OPENS | _MAKES_CODES
"""Operators that turn floats into codes, or codes into floats."""
_LAYOUT = frozenset({"Transpose", "ReorderInput", "ReorderOutput"})
_MOVES = frozenset(
    {
        *("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Slice", "Gather", "Split", "Expand"),
        *("Shape", "Size", "Constant", "ConstantOfShape", "Range", "If", "Loop", "Scan", "Dropout"),
    }
)
"""Operators that are no work of their own: they move elements, or hold others."""
_TO_NEITHER = frozenset(
    {
        *("Shape", "Size", "ArgMax", "ArgMin", "NonZero", "Equal", "Greater", "Less", "GreaterOrEqual"),
        *("LessOrEqual", "And", "Or", "Not", "Xor", "IsNaN", "IsInf", "ConvInteger", "MatMulInteger"),
    }
)
_FLOATS = frozenset({onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE})
_CODES = frozenset({onnx.TensorProto.INT8, onnx.TensorProto.UINT8})
_NORMS = frozenset(
    {
        *("Softmax", "LogSoftmax", "LayerNormalization", "SkipLayerNormalization", "BatchNormalization"),
        *("InstanceNormalization", "GroupNormalization", "RMSNormalization", "LpNormalization", "LRN"),
        *("SimplifiedLayerNormalization", "SkipSimplifiedLayerNormalization"),
    }
)
_POOLS = frozenset({"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "LpPool", "NhwcMaxPool"})
_ISLAND_CAUSES: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset(UNFOLDED_ACTIVATIONS), "activation-in-float"),
    (_NORMS, "norm-in-float"),
    (frozenset({"ReduceMean"}), "reduce-mean-in-float"),
    (frozenset({"Pad"}), "pad-in-float"),
    (_POOLS, "pool-in-float"),
    (frozenset({"Concat"}), "concat-in-float"),
    (frozenset({"Add", "Mul"}), "add-in-float"),
    (frozenset({"Cast"}), "cast"),
)


@dataclass(frozen=True)
class Part:
    """What one node of the optimized graph is there for.

    Attributes:
        bucket: the kind of work.
        cause_id: the cause of the operator or island that it belongs to.
        island: number of its island; None where it belongs to none.
        weighted: index of the audited operator whose work it does.
    """

    bucket: Bucket
    cause_id: str | None = None
    island: int | None = None
    weighted: int | None = None


@dataclass(frozen=True)
class Island:
    """A connected set of operators without weights that run in float.

    Attributes:
        cause_id: the cause, by what is in it.
        nodes: its operators.
        follows_int8: whether anything before it was in int8: if not, it prepares the input.
        reads: for each tensor from outside the element type of its codes, or float.
    """

    cause_id: str
    nodes: tuple[Running, ...]
    follows_int8: bool
    reads: tuple[str, ...]


@dataclass(frozen=True)
class Work:
    """Every node's part, by its index, and the islands."""

    parts: Mapping[int, Part]
    islands: tuple[Island, ...]


def divide(optimized: Optimized, weighted: Mapping[int, tuple[int, str | None]]) -> Work:
    """Say what every node of the optimized graph is there for.

    Args:
        optimized: what runs.
        weighted: index of a node that does a weighted operator's work: the operator's index and its cause's
            id, None for int8.
    """
    kinds = _Kinds(optimized.nodes)
    parts: dict[int, Part] = {}
    for one in optimized.nodes:
        parts[one.index] = _first_part(one, kinds, weighted)
    islands = list(_islands(optimized.nodes, parts, kinds))
    for number, island in enumerate(islands):
        part = Part("island", island.cause_id, number) if island.follows_int8 else Part("other")
        parts.update((one.index, part) for one in island.nodes)
    for one in optimized.nodes:
        if one.node.op_type in QUANTIZERS:
            parts[one.index] = _quantizer_part(one, parts, kinds)
    return Work(parts, tuple(islands))


class _Kinds:
    """Who makes and who reads each tensor of the optimized graph, and what it holds."""

    def __init__(self, nodes: tuple[Running, ...]) -> None:
        self._of: dict[str, Kind] = {}
        self.maker: dict[str, Running] = {}
        self.readers: dict[str, list[Running]] = {}
        self.after_int8: set[str] = set()
        for one in nodes:
            for entry in one.view.graph.input:
                self._of.setdefault(entry.name, _kind_of_type(entry.type.tensor_type.elem_type))
        for one in nodes:
            self._add(one)

    def _add(self, one: Running) -> None:
        found = self._made(one)
        for name in filter(None, one.node.output):
            self._of[name], self.maker[name] = found, one
        for name in dict.fromkeys(filter(None, one.node.input)):
            self.readers.setdefault(name, []).append(one)
        opens_constant = one.node.op_type in _OPENS and one.view.is_constant(one.node.input[0])
        on_codes = one.node.op_type in QUANTIZERS or INT8.search(one.node.op_type) is not None
        if (on_codes and not opens_constant) or not self.after_int8.isdisjoint(one.node.input):
            self.after_int8.update(one.node.output)

    def of(self, view: GraphView, name: str) -> Kind:
        """What a tensor holds."""
        if name in self._of:
            return self._of[name]
        scope: GraphView | None = view
        while scope is not None:
            if name in scope.initializers:
                return _kind_of_type(scope.initializers[name].data_type)
            scope = scope.outer
        return "other"

    def read(self, one: Running) -> list[Kind]:
        """What the inputs of a node hold that are no constants."""
        names = [name for name in one.node.input if name and not one.view.is_constant(name)]
        return [self.of(one.view, name) for name in names]

    def _made(self, one: Running) -> Kind:
        kind = one.node.op_type
        if kind in _MAKES_CODES or kind.startswith("QLinear"):
            return "codes"
        if kind == "QGemm":
            return "codes" if len(one.node.input) > 7 and one.node.input[7] else "float"
        if kind in _OPENS or kind.endswith("ToFloat") or kind.startswith("Dynamic"):
            return "float"
        if kind == "Cast":
            to = next((entry.i for entry in one.node.attribute if entry.name == "to"), 0)
            return _kind_of_type(to)
        if kind in _TO_NEITHER:
            return "other"
        read = self.read(one) or [self.of(one.view, name) for name in one.node.input if name]
        return "float" if "float" in read else read[0] if read else "other"


def _kind_of_type(data_type: int) -> Kind:
    return "float" if data_type in _FLOATS else "codes" if data_type in _CODES else "other"


def _first_part(one: Running, kinds: _Kinds, weighted: Mapping[int, tuple[int, str | None]]) -> Part:
    """A node's part by itself; islands are put together later."""
    kind = one.node.op_type
    if one.index in weighted:
        operator, cause_id = weighted[one.index]
        return Part("int8" if cause_id is None else "float", cause_id, weighted=operator)
    if kind in QUANTIZERS:
        return Part("quantizers", "quantizers-left")
    if kind in _LAYOUT:
        return Part("layout", "layout-conversion")
    made = [kinds.of(one.view, name) for name in one.node.output if name]
    if INT8.search(kind) or "codes" in kinds.read(one) or "codes" in made:
        return Part("int8")
    is_work = kind not in _MOVES and "float" in (*kinds.read(one), *made)
    return Part("island") if is_work else Part("other")


def _islands(nodes: tuple[Running, ...], parts: Mapping[int, Part], kinds: _Kinds) -> Iterator[Island]:
    """Connected sets of operators without weights in float, in the order of their first node."""
    left = {one.index: one for one in nodes if parts[one.index].bucket == "island"}
    while left:
        first = next(iter(left))
        found, border = [left.pop(first)], [nodes[first]]
        while border:
            one = border.pop()
            for neighbor in (*_makers(one, kinds), *_readers(one, kinds)):
                if neighbor.index in left:
                    found.append(left.pop(neighbor.index))
                    border.append(neighbor)
        yield _island(sorted(found, key=lambda one: one.index), kinds)


def _makers(one: Running, kinds: _Kinds) -> Iterator[Running]:
    return (kinds.maker[name] for name in one.node.input if name in kinds.maker)


def _readers(one: Running, kinds: _Kinds) -> Iterator[Running]:
    return (reader for name in one.node.output for reader in kinds.readers.get(name, []))


def _island(nodes: list[Running], kinds: _Kinds) -> Island:
    types = {one.node.op_type for one in nodes}
    cause = next((cause for kinds_of, cause in _ISLAND_CAUSES if types & kinds_of), "float-island")
    inside = {name for one in nodes for name in one.node.output}
    sources = [
        (one, name)
        for one in nodes
        for name in one.node.input
        if name and name not in inside and not one.view.is_constant(name)
    ]
    reads = tuple(_reads(one.view, name, kinds) for one, name in sources)
    follows = any(name in kinds.after_int8 for one in nodes for name in one.node.input)
    return Island(cause, tuple(nodes), follows, reads)


def _reads(view: GraphView, name: str, kinds: _Kinds) -> str:
    """Element type of the codes that a tensor was opened from, or float."""
    maker = kinds.maker.get(name)
    if maker is None or maker.node.op_type not in _OPENS:
        return "float"
    zero_point = maker.node.input[2] if len(maker.node.input) > 2 else ""
    value = maker.view.constant(zero_point) if zero_point else None
    return "codes" if value is None else str(value.dtype)


def _quantizer_part(one: Running, parts: Mapping[int, Part], kinds: _Kinds) -> Part:
    """The part of the operator or island that a quantizer was left for."""
    near = _readers(one, kinds) if one.node.op_type in _OPENS else _makers(one, kinds)
    neighbors = [parts[neighbor.index] for neighbor in near]
    for bucket in ("float", "island"):
        for part in neighbors:
            if part.bucket == bucket:
                return Part(part.bucket, part.cause_id, part.island)
    at_the_end = not neighbors or all(part.bucket in ("other", "layout") for part in neighbors)
    return Part("quantizers", None if at_the_end else "quantizers-left")
