"""A graph as a runtime would run it: what is folded into a weighted operator, chains as one, codes of 8 bits.

A weighted operator takes in its batch norm, its activation, a constant that is added, the residual Add and
the quantizer of its result, one after the other, as long as each is the only reader of the one before. It
runs in int8 where its operands are codes that a DequantizeLinear opens; on ONNX Runtime, which keeps some of
those in float all the same, the audit of the optimized graph has the last word. Operators element by element
that are the only readers of one another run as one. A DequantizeLinear costs nothing where all that read it
read codes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import onnx
from onnx import TensorProto

from edgekd.conversion.auditing.causes.lookup import dequantizer_of
from edgekd.conversion.graph_view import GraphView, label
from edgekd.documents.prediction import NumberType, OperatorClass
from edgekd.documents.runtime import TargetRuntime
from edgekd.measure.prediction import traffic
from edgekd.measure.prediction.kinds import (
    ON_CODES,
    QUANTIZERS,
    VIEWS,
    WEIGHTED,
    is_elementwise,
    kind_of,
    macs_of,
    operands,
    operations_of,
    width_of,
)
from edgekd.measure.prediction.tensors import Tensors

_FOLDED = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid"})
"""Activations that ONNX Runtime's float convolutions take in; TensorRT's take in any."""
_CLAMPS = frozenset({"Relu", "Clip", "QuantizeLinear"})
_ORT_CODES = frozenset(
    {
        *("Add", "Mul", "Relu", "Clip", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Sigmoid"),
        *("LeakyRelu", "Softmax", "Resize", "Transpose", "Gather", "Slice", "Split", "Pad", *VIEWS),
    }
)
"""Operators without weights that ONNX Runtime has a kernel on codes for, or that only move them."""


@dataclass(frozen=True)
class FusedOperator:
    """One operator as it runs.

    Attributes:
        name: of the operator that it is called after.
        kind: the class of its work.
        number_type: what it computes with.
        macs, operations: its work.
        width: products of one position, in one group of channels; of others without them its operations.
        read_bytes, written_bytes: what it moves.
        weight_bytes: part of what it reads that is the same in every inference.
        op_types: of all that is folded into it, in order.
        launches: of kernels; more than one for a chain that the runtime does not fuse.
    """

    name: str
    kind: OperatorClass
    number_type: NumberType
    macs: int
    operations: int
    width: int
    read_bytes: int
    written_bytes: int
    weight_bytes: int
    op_types: tuple[str, ...]
    launches: int = 1

    @property
    def moved_bytes(self) -> int:
        """Activations that it reads and writes."""
        return self.read_bytes + self.written_bytes - self.weight_bytes


@dataclass
class _Group:
    """Operators that run as one, first to last."""

    nodes: list[onnx.NodeProto]
    on_codes: bool = False

    @property
    def last(self) -> onnx.NodeProto:
        return self.nodes[-1]


def fuse(
    model: onnx.ModelProto, runtime: TargetRuntime, in_int8: frozenset[int] | None = None
) -> tuple[FusedOperator, ...]:
    """The operators of a graph as a runtime would run them, in the graph's order.

    Args:
        model: with no functions of its own.
        runtime: whose rules hold.
        in_int8: numbers of the nodes that the audit found in int8; None takes the quantizers as written.

    Raises:
        UsageError: the shape of an input is free.
    """
    fuser = _Fuser(GraphView.of(model.graph), Tensors(model), runtime, in_int8)
    fuser.group_all()
    return tuple(fuser.operators())


@dataclass
class _Fuser:
    """The groups of a graph while they are put together."""

    view: GraphView
    tensors: Tensors
    runtime: TargetRuntime
    in_int8: frozenset[int] | None
    group_of: dict[int, _Group] = field(default_factory=dict)

    def __post_init__(self) -> None:
        constant = self.view.is_constant
        nodes = enumerate(self.view.graph.node)
        self.nodes = {number: node for number, node in nodes if not all(map(constant, node.output))}
        self.number_of = {id(node): number for number, node in self.nodes.items()}

    def group_all(self) -> None:
        """Weighted operators first, the last one first: a residual is added by the later of two branches."""
        for number in reversed(self.nodes):
            if self.nodes[number].op_type in WEIGHTED:
                self._group_weighted(number)
        for number, node in self.nodes.items():
            if number not in self.group_of and node.op_type not in QUANTIZERS:
                self._group_other(number)
        for number, node in self.nodes.items():
            if number not in self.group_of and not self._is_folded(node):
                self._keep(_Group([node]))

    def operators(self) -> Iterator[FusedOperator]:
        """What was put together, in the order of the first node."""
        for group in {id(group): group for _, group in sorted(self.group_of.items())}.values():
            yield self._operator(group)

    def _group_weighted(self, number: int) -> None:
        node = self.nodes[number]
        group = _Group([node], self._runs_on_codes(number, node))
        while (after := self._next(group)) is not None and self._is_taken_in(group, after):
            group.nodes.append(after)
            if after.op_type == "QuantizeLinear":
                break
        self._keep(group)

    def _runs_on_codes(self, number: int, node: onnx.NodeProto) -> bool:
        if node.op_type in ON_CODES:
            return True
        opened = all(dequantizer_of(self.view, name) is not None for name in operands(node))
        known = self.in_int8 is not None and any(map(self.view.is_constant, operands(node)))
        return opened if not known else self.in_int8 is not None and number in self.in_int8

    def _is_taken_in(self, group: _Group, node: onnx.NodeProto) -> bool:
        """Whether a weighted operator does the work of its only reader too."""
        kind = node.op_type
        if kind == "QuantizeLinear":
            return group.on_codes
        if kind == "BatchNormalization":
            return True
        if kind in ("Add", "Sub", "Mul", "Div") and any(map(self.view.is_constant, node.input)):
            return True
        if kind == "Add":
            return self.runtime == "tensorrt" or not group.on_codes
        if self.runtime == "tensorrt":
            return (is_elementwise(kind) and len(node.input) == 1) or kind == "Clip"
        return kind in _FOLDED

    def _group_other(self, number: int) -> None:
        group = _Group([self.nodes[number]])
        kind = group.last.op_type
        while is_elementwise(kind) and (after := self._next(group)) is not None:
            if not is_elementwise(after.op_type) or after.op_type in QUANTIZERS:
                break
            group.nodes.append(after)
        self._take_quantizer(group)
        self._keep(group)

    def _take_quantizer(self, group: _Group) -> None:
        """Codes in, codes out: the quantizers on both sides are the operator's own."""
        kinds = {node.op_type for node in group.nodes}
        if kinds <= ON_CODES.keys():
            group.on_codes = True
            return
        after = self._next(group)
        reads = [
            name for name, _ in traffic.sources(self.view, group.nodes) if not self.view.is_constant(name)
        ]
        able = self.runtime == "tensorrt" or kinds <= _ORT_CODES
        opened = bool(reads) and all(dequantizer_of(self.view, name) is not None for name in reads)
        if able and opened and after is not None and after.op_type == "QuantizeLinear":
            group.nodes.append(after)
            group.on_codes = True

    def _is_folded(self, node: onnx.NodeProto) -> bool:
        """Whether a DequantizeLinear is read by nothing but operators on codes, through views or not."""
        if node.op_type != "DequantizeLinear" or self.view.is_output(node.output[0]):
            return False
        return all(self._reads_codes(reader) for reader in self.view.consumers.get(node.output[0], []))

    def _reads_codes(self, node: onnx.NodeProto) -> bool:
        if id(node) not in self.number_of:
            return True
        group = self.group_of.get(self.number_of[id(node)])
        if group is not None and group.on_codes:
            return True
        readers = self.view.consumers.get(node.output[0], [])
        return node.op_type in VIEWS and bool(readers) and all(map(self._reads_codes, readers))

    def _next(self, group: _Group) -> onnx.NodeProto | None:
        """The only reader of a group's result, where it is in no group yet."""
        name = group.last.output[0]
        readers = self.view.consumers.get(name, [])
        if len(readers) != 1 or self.view.is_output(name) or len(group.last.output) > 1:
            return None
        return None if self.number_of.get(id(readers[0])) in self.group_of else readers[0]

    def _keep(self, group: _Group) -> None:
        for node in group.nodes:
            self.group_of[self.number_of[id(node)]] = group

    def _operator(self, group: _Group) -> FusedOperator:
        first, tensors = group.nodes[0], self.tensors
        kind = kind_of(first, tensors)
        weighted = first.op_type in WEIGHTED
        macs = macs_of(first, tensors) or 0 if weighted else 0
        counts = [self._operations(node, group) for node in group.nodes[weighted:]]
        operations = 2 * macs + sum(count or 0 for count in counts)
        weights, read, written = self._traffic(group)
        return FusedOperator(
            name=label(first),
            kind="other" if None in counts else kind,
            number_type=self._number_type(group),
            macs=macs,
            operations=operations,
            width=width_of(first, tensors, macs) if macs else operations,
            read_bytes=weights + read,
            written_bytes=written,
            weight_bytes=weights,
            op_types=tuple(node.op_type for node in group.nodes),
            launches=self._launches(group),
        )

    def _traffic(self, group: _Group) -> tuple[int, int, int]:
        """Bytes of constants that a group reads, of activations, and bytes that it writes."""
        if group.nodes[0].op_type in VIEWS:
            return 0, 0, 0
        weights, read = traffic.read_bytes(self.view, self.tensors, group.nodes, group.on_codes)
        return weights, read, traffic.written_bytes(self.tensors, group.last)

    def _launches(self, group: _Group) -> int:
        """ONNX Runtime launches each operator of a chain; in a cache its bytes are no work to speak of."""
        chained = is_elementwise(group.nodes[0].op_type) and not group.on_codes
        return len(group.nodes) if chained and self.runtime == "onnxruntime" else 1

    def _operations(self, node: onnx.NodeProto, group: _Group) -> int | None:
        """On codes a quantizer and a clamp are part of the kernel that makes the codes."""
        return 0 if group.on_codes and node.op_type in _CLAMPS else operations_of(node, self.tensors)

    def _number_type(self, group: _Group) -> NumberType:
        if group.on_codes:
            return "int8"
        makes = self.tensors.element_type(group.nodes[0].output[0])
        return "fp16" if makes in (TensorProto.FLOAT16, TensorProto.BFLOAT16) else "fp32"
