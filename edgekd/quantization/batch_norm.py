"""Batch norm that learns on while its layer is rounded as it will ship: folded into the weight.

With running mean m and variance v, factor g and shift b, a = g / sqrt(v + eps), weight W and bias d of the
layer, and Q the rounding of weights:

    while the statistics move    y = BN(conv(x, Q(a W) / a) + d), by the batch's own mean and variance
    after that, and to evaluate  y = conv(x, Q(a W)) + a (d - m) + b: the folded layer, bit for bit

So the codes are those that ship in both, and freezing the statistics moves nothing but the noise of batches.
Source: Krishnamoorthi, "Quantizing deep convolutional networks for efficient inference" (arXiv 1806.08342),
section 3.2.2. Departure: the weight is always scaled by the running variance, not first by the batch's.
With several processes each normalizes by its own share of a batch, and the first one's statistics count.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quantization.canonical import canonicalize
from edgekd.quantization.fold import Affine, affine_from, fold_back, gives_affine
from edgekd.quantization.operations import annotate, operation_of
from edgekd.quantization.scheme import per_output
from edgekd.quantization.trace import trace

WeightedOp = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear
BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
_SMALLEST_FACTOR = 2.0**-40
"""Least |a| that is divided by; the channel is dead then, and its weight rounds to nothing."""


def affine_of(norm: BatchNorm) -> Affine:
    """What a batch norm does in evaluation."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return affine_from(norm.running_mean, norm.running_var, norm.weight, norm.bias, norm.eps)


def unscale(weight_OX: Tensor, norm: BatchNorm) -> Tensor:
    """A folded weight (O, ...), rounded or not, without the factor a of its batch norm."""
    factor_O = affine_of(norm).scale_C.float()
    factor_O = torch.where(factor_O.abs() < _SMALLEST_FACTOR, _SMALLEST_FACTOR, factor_O)
    return weight_OX / per_output(factor_O, weight_OX.ndim)


def folded_norms(network: nn.Module, example_x: Tensor) -> dict[str, tuple[WeightedOp, BatchNorm]]:
    """Layers of a network that `prepare` folds a batch norm into: path -> copies of the layer and the norm.

    Those without factor and shift, and those written as functions, are not among them: they stay folded.
    """
    graph = trace(network, example_x)
    canonicalize(graph, example_x)
    annotate(graph, example_x)
    found: dict[str, tuple[WeightedOp, BatchNorm]] = {}
    for node in graph.graph.nodes:
        norm = _norm_of(graph, node)
        if norm is not None and gives_affine(graph, node.args[0]):
            layer: Any = graph.get_submodule(str(node.args[0].target))
            found[str(node.args[0].target)] = copy.deepcopy((layer, norm))
    return found


def is_folded(weight_OX: Tensor, layer: WeightedOp, norm: BatchNorm) -> bool:
    """Whether a weight is that of `layer` with `norm` folded into it, bit for bit."""
    weight, _ = fold_back(layer.weight, layer.bias, affine_of(norm))
    return torch.equal(weight_OX, weight)


def _norm_of(graph: fx.GraphModule, node: fx.Node) -> BatchNorm | None:
    if node.op != "call_module" or operation_of(graph, node) != "batch_norm":
        return None
    norm = graph.get_submodule(str(node.target))
    if not isinstance(norm, BatchNorm) or not norm.affine or norm.running_var is None:
        return None
    return norm
