"""Tokens as rows: a linear map of (B, N, C) becomes one of (B * N, C), and so does what lies between two.

The exporter writes a linear map of two axes as Gemm, of more axes as MatMul and Add. ONNX Runtime runs a
quantized Gemm with its bias in one kernel (QGemm), but a quantized MatMul as a product and an addition, and a
GELU behind that addition in its slow fused form (BiasGelu). What works on each number or each row by itself
is done on the rows too, so that axes are not split only to be merged again. Exact: every row is computed as
it was. Source: measured with onnxruntime 1.31.1 (benchmarks/int8/speed.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.canonical import settle
from edgekd.quantization.operations import annotate, is_tensor, label_of, operation_of, shape_of
from edgekd.quantization.trace import LABEL, SHAPE

_EACH_NUMBER = ("relu", "relu6", "sigmoid", "hardsigmoid", "hard_swish", "gelu", "leaky_relu", "tanh")
_JOINS = ("add", "mul")


def linear_maps_on_rows(graph: fx.GraphModule, x: Tensor) -> None:
    """Rewrite an annotated, canonical graph in place; `x` is a batch that it takes."""
    _Rows(graph, _sizes_of_two_batches(graph, x)).rewrite()
    settle(graph)


def maps_tokens(graph: fx.GraphModule) -> bool:
    """Whether a graph has a linear map of more than two axes."""
    return any(_maps_tokens(graph, node) for node in graph.graph.nodes)


def _maps_tokens(graph: fx.GraphModule, node: fx.Node) -> bool:
    return operation_of(graph, node) == "linear" and len(shape_of(node)) > 2


def _sizes_of_two_batches(graph: fx.GraphModule, x: Tensor) -> dict[fx.Node, tuple[int, ...]]:
    """Shapes of the tensors for one example more than `x` has; those for `x` are in the nodes' notes."""
    annotate(graph, torch.cat([x, x[:1]]))
    more = {node: shape_of(node) for node in graph.graph.nodes if is_tensor(node)}
    annotate(graph, x)
    return more


class _Rows:
    """Tensors of which the rows are at hand."""

    def __init__(self, graph: fx.GraphModule, other_shapes: dict[fx.Node, tuple[int, ...]]) -> None:
        self._graph = graph
        self._other_shapes = other_shapes
        self._rows: dict[fx.Node, fx.Node] = {}

    def rewrite(self) -> None:
        """Go through the graph once, from its input to its output."""
        for node in list(self._graph.graph.nodes):
            if _is_plain_reshape(node) and node.args[0] in self._rows:
                node.args = (self._rows[node.args[0]], *node.args[1:])
            elif self._is_wanted(node) and self._is_batch_first(node):
                self._compute_on_rows(node)

    def _is_wanted(self, node: fx.Node) -> bool:
        if not is_tensor(node):
            return False
        if _maps_tokens(self._graph, node):
            return True
        operation = operation_of(self._graph, node)
        if operation in _EACH_NUMBER or self._is_norm_of_rows(node):
            return node.args[0] in self._rows
        if operation not in _JOINS or node.kwargs:
            return False
        return not self._rows.keys().isdisjoint(node.args) and all(self._fits(node, x) for x in node.args)

    def _is_norm_of_rows(self, node: fx.Node) -> bool:
        if operation_of(self._graph, node) != "layer_norm":
            return False
        holder: Any = self._graph.get_submodule(str(node.target)) if node.op == "call_module" else None
        shape = node.args[1] if holder is None else holder.normalized_shape
        return isinstance(shape, tuple | list) and len(shape) == 1

    def _fits(self, node: fx.Node, operand: object) -> bool:
        """Whether an operand of a sum or product goes with rows: of the same shape, or a number a channel."""
        if not isinstance(operand, fx.Node) or not is_tensor(operand):
            return isinstance(operand, int | float)
        if _is_weight_of_channels(operand):
            return True
        same = shape_of(operand) == shape_of(node)
        return same and self._other_shapes[operand] == self._other_shapes[node]

    def _is_batch_first(self, node: fx.Node) -> bool:
        """Whether only the first axis depends on the batch, so that the others can be written down."""
        return shape_of(node)[1:] == self._other_shapes[node][1:]

    def _compute_on_rows(self, node: fx.Node) -> None:
        graph = self._graph.graph
        with graph.inserting_before(node):
            rows = graph.node_copy(node, self._rows_of)
            shape = shape_of(node)
            whole = graph.call_function(torch.reshape, (rows, (-1, *shape[1:])))
        rows.meta = _described(node, (_product(shape[:-1]), shape[-1]))
        whole.meta = _described(node, shape)
        node.replace_all_uses_with(whole)
        graph.erase_node(node)
        self._rows[whole] = rows
        self._other_shapes[whole] = self._other_shapes[node]

    def _rows_of(self, source: fx.Node) -> fx.Node:
        """The rows of what an operation reads; a number for each channel is as it is."""
        if _is_weight_of_channels(source):
            return source
        if source not in self._rows:
            size = shape_of(source)[-1]
            origin = source.args[0] if _is_plain_reshape(source) else source
            rows = self._graph.graph.call_function(torch.reshape, (origin, (-1, size)))
            rows.meta = _described(source, (_product(shape_of(source)[:-1]), size))
            self._rows[source] = rows
        return self._rows[source]


def _is_plain_reshape(node: fx.Node) -> bool:
    """Whether a node puts numbers into a shape that it names, whatever shape they had."""
    return node.target in (torch.reshape, "reshape", "view") and not node.kwargs


def _is_weight_of_channels(node: fx.Node) -> bool:
    return node.op == "get_attr" and len(shape_of(node)) < 2


def _described(node: fx.Node, shape: tuple[int, ...]) -> dict[str, object]:
    return {**node.meta, LABEL: label_of(node), SHAPE: shape}


def _product(sizes: tuple[int, ...]) -> int:
    return int(torch.Size(sizes).numel())
