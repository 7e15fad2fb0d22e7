"""Rewrites of a traced network before quantizers are placed; documents/rewrites.py says what each is.

Those that are about where quantizers go are in place.py, those that are about one runtime's kernels in
conversion/. The rewrites here leave what the network computes as it is, but for those that replace an
activation.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, fx

from edgekd.documents.rewrites import (
    DENSE_OUTPUTS,
    DENSE_STEP,
    DEPTHWISE_STEP,
    INPUT_STEP,
    REWRITES,
    resolve,
)
from edgekd.documents.scheme import Scheme
from edgekd.quantization.canonical import replace_silu, replace_with_relu
from edgekd.quantization.operations import is_silu, operation_of
from edgekd.quantization.place import place
from edgekd.quantization.rewrites_rows import linear_maps_on_rows, maps_tokens


def apply_rewrites(graph: fx.GraphModule, x: Tensor, choices: Mapping[str, bool]) -> None:
    """Rewrite an annotated, canonical graph with batch norm folded, in place; it has to be annotated again.

    Args:
        graph: the graph.
        x: a batch that it takes.
        choices: rewrites that are on or off; the others as by default.

    Raises:
        UsageError: a name is no rewrite.
    """
    wanted = resolve(choices)
    if wanted["relu6_as_relu"]:
        replace_with_relu(graph)
    if wanted["silu_as_hard_swish"]:
        replace_silu(graph)
    if wanted["tokens_as_rows"] and maps_tokens(graph):
        linear_maps_on_rows(graph, x)


def applicable(graph: fx.GraphModule) -> tuple[str, ...]:
    """Names of the rewrites that would change an annotated, canonical graph with batch norm folded."""
    return tuple(name for name in REWRITES if _applies(graph, name))


def _applies(graph: fx.GraphModule, name: str) -> bool:
    operations = {operation_of(graph, node) for node in graph.graph.nodes}
    match name:
        case "relu6_as_relu":
            return "relu6" in operations
        case "silu_as_hard_swish":
            return any(is_silu(graph, node) for node in graph.graph.nodes)
        case "tokens_as_rows":
            return maps_tokens(graph)
        case "pad_channels":
            return any(_has_odd_width(graph, node) for node in graph.graph.nodes)
        case _:  # it is about where quantizers go
            flipped = {name: not REWRITES[name].default}
            return place(graph, Scheme()) != place(graph, Scheme(rewrites=flipped))


def _has_odd_width(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether the int8 kernels leave some of their width empty, or do not take the convolution at all."""
    if operation_of(graph, node) != "conv":
        return False
    conv = graph.get_submodule(str(node.target))
    inputs, outputs, groups = (int(getattr(conv, name)) for name in ("in_channels", "out_channels", "groups"))
    if groups == 1:
        return bool(outputs < DENSE_OUTPUTS or outputs % DENSE_STEP or inputs % INPUT_STEP)
    return groups == inputs == outputs and outputs % DEPTHWISE_STEP != 0
