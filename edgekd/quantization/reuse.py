"""Logits of many variants of one quantized network, each computed only where it differs from the first.

Two nodes are the same when they apply the same operation, with the same scales, to inputs that are the
same. The first network's tensors are kept for a few examples at a time; a variant takes from them what is the
same and computes the rest. A variant that differs at one layer costs less than half a network on average.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, fx

from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.operations import is_tensor, shape_of
from edgekd.quantization.scheme import code_range
from edgekd.quantization.trace import attribute_of

_ELEMENTS = 2**25
"""Numbers of the first network that are kept at once: 128 MiB."""
_MOST_ROWS = 64


@dataclass(frozen=True)
class Variant:
    """A quantized network of which some activations may pass in float."""

    network: QuantizedNetwork
    passing: frozenset[str] = frozenset()
    """Modules of quantizers that let everything through."""


@torch.no_grad()
def logits_of(first: QuantizedNetwork, variants: Sequence[Variant], x_NC: Tensor) -> list[Tensor]:
    """Logits (N, K) of every variant.

    Args:
        first: in evaluation, as the variants: set up as they are, with the weights of the same student.
        variants: what differs from it.
        x_NC: normalized examples.
    """
    ids: dict[Any, int] = {}
    base, keys = Variant(first), [_keys(variant, ids) for variant in (Variant(first), *variants)]
    found: list[list[Tensor]] = [[] for _ in variants]
    for x_BC in torch.split(x_NC, _rows(first.graph)):
        kept: dict[int, Any] = {}
        _Run(base, keys[0], kept, keeping=True).run(x_BC)
        for logits, variant, own in zip(found, variants, keys[1:], strict=True):
            logits.append(_Run(variant, own, kept, keeping=False).run(x_BC))
    return [torch.cat(logits) for logits in found]


class _Run(fx.Interpreter):
    """One network on one batch; values that are kept are not computed again."""

    def __init__(
        self, variant: Variant, keys: dict[fx.Node, int], kept: dict[int, Any], *, keeping: bool
    ) -> None:
        super().__init__(variant.network.graph)
        self._passing, self._keys, self._kept, self._keeping = variant.passing, keys, kept, keeping

    def run_node(self, n: fx.Node) -> Any:
        """The node's value, kept or computed."""
        key = self._keys[n]
        if key in self._kept:
            return self._kept[key]
        value = super().run_node(n)
        if self._keeping:
            self._kept[key] = value
        return value

    def call_module(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """A module's output; a quantizer that lets everything through is not called."""
        return args[0] if target in self._passing else super().call_module(target, args, kwargs)


def _rows(graph: fx.GraphModule) -> int:
    """Examples at a time."""
    numbers = sum(prod(shape_of(node)[1:]) for node in graph.graph.nodes if is_tensor(node))
    return max(1, min(_MOST_ROWS, _ELEMENTS // max(1, numbers)))


def _keys(variant: Variant, ids: dict[Any, int]) -> dict[fx.Node, int]:
    """A number for every node; the same in two networks where the values are the same."""
    keys: dict[fx.Node, int] = {}
    for node in variant.network.graph.graph.nodes:
        same_as = _passes(variant, node)
        signature = _signature(variant.network.graph, node, keys)
        keys[node] = keys[same_as] if same_as is not None else ids.setdefault(signature, len(ids))
    return keys


def _passes(variant: Variant, node: fx.Node) -> fx.Node | None:
    """The tensor that a node lets through as it is."""
    if node.op != "call_module" or not isinstance(
        variant.network.graph.get_submodule(str(node.target)), ActivationQuantizer
    ):
        return None
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source if node.kwargs.get("repeated") or node.target in variant.passing else None


def _signature(graph: fx.GraphModule, node: fx.Node, keys: dict[fx.Node, int]) -> tuple[Any, ...]:
    def numbered(input: fx.Node) -> Any:
        return f"#{keys[input]}"

    inputs = repr(fx.map_arg((node.args, node.kwargs), numbered))
    return (node.op, *_operation(graph, node), inputs)


def _operation(graph: fx.GraphModule, node: fx.Node) -> tuple[Any, ...]:
    """What a node does, beyond its inputs; modules of one path hold the same weights."""
    target: Any = node.target
    if node.op == "get_attr":
        value = attribute_of(graph, target)
        return ("number", float(value)) if isinstance(value, Tensor) and value.numel() == 1 else (target,)
    if node.op != "call_module":
        return (target,)
    match graph.get_submodule(target):
        case ActivationQuantizer() as quantizer:
            codes = code_range(quantizer.saturation, non_negative=quantizer.non_negative)
            return ("quantizer", float(quantizer.amax.detach()), codes, quantizer.quantizing)
        case WeightQuantizer() as quantizer:
            return (target, quantizer.bits, quantizer.saturation, quantizer.quantizing)
        case _:
            return (target,)
