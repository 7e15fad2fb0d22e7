"""Fold batch normalization of a network in evaluation into its neighbors.

With running mean m, variance v, weight g and bias b, batch norm is y = a x + c per channel, where
a = g / sqrt(v + eps) and c = b - a m. After a convolution or linear map (W, d) it vanishes:
W' = a W, d' = a d + c. Before a linear map whose only input it is: W' = W a, d' = d + W c.
Elsewhere (before an activation, after an addition) it becomes a depthwise 1x1 convolution, which has an
int8 kernel.
The arithmetic is in float64; the result is rounded to float32 once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quantization.canonical import free_path, settle
from edgekd.quantization.operations import is_tensor, label_of, operation_of, shape_of
from edgekd.quantization.trace import attribute_of

_DEPTHWISE = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}


@dataclass(frozen=True)
class Affine:
    """y = scale * x + shift, per channel, in float64."""

    scale_C: Tensor
    shift_C: Tensor


def fold_batch_norm(graph: fx.GraphModule) -> None:
    """Fold every batch norm of an annotated, canonical graph in place."""
    for node in list(graph.graph.nodes):
        found = _affine_of(graph, node) if operation_of(graph, node) == "batch_norm" else None
        if found is not None and is_tensor(node.args[0]):
            _fold(graph, node, found)
    settle(graph)


def _fold(graph: fx.GraphModule, node: fx.Node, affine: Affine) -> None:
    source = node.args[0]
    assert isinstance(source, fx.Node)
    users = list(node.users)
    if gives_affine(graph, source):
        module: Any = graph.get_submodule(str(source.target))
        _set(module, *fold_back(module.weight, module.bias, affine))
        node.replace_all_uses_with(source)
    elif len(users) == 1 and _takes_affine(graph, users[0], node):
        _fold_forward(graph.get_submodule(str(users[0].target)), affine)
        node.replace_all_uses_with(source)
    elif len(shape_of(source)) in _DEPTHWISE:
        _become_depthwise(graph, node, source, affine)
    else:
        return
    graph.graph.erase_node(node)


def _affine_of(graph: fx.GraphModule, node: fx.Node) -> Affine | None:
    """What a batch norm does in evaluation, or None when it uses the batch's own statistics."""
    if node.op == "call_module":
        norm: Any = graph.get_submodule(str(node.target))
        parts = (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        return None if norm.running_mean is None else affine_from(*parts, norm.eps)
    names = ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps")
    given: dict[str, Any] = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if given.get("training") or not isinstance(given.get("running_mean"), fx.Node):
        return None
    mean, var, weight, bias = (_value(graph, given.get(name)) for name in names[1:5])
    assert mean is not None
    assert var is not None
    return affine_from(mean, var, weight, bias, given.get("eps", 1e-5))


def affine_from(mean: Tensor, var: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Affine:
    """What a batch norm with this running mean and variance, factor and bias (C,) does in evaluation."""
    scale = torch.rsqrt(var.double() + eps) * (1.0 if weight is None else weight.double())
    shift = (0.0 if bias is None else bias.double()) - scale * mean.double()
    return Affine(scale, shift)


def fold_back(weight_OX: Tensor, bias_O: Tensor | None, after: Affine) -> tuple[Tensor, Tensor]:
    """Weight (O, ...) and bias (O,), float32, of a map that does what comes after it too."""
    per_output = (-1, *[1] * (weight_OX.ndim - 1))
    bias = 0.0 if bias_O is None else bias_O.double()
    weight = weight_OX.double() * after.scale_C.view(per_output)
    return weight.float(), (after.scale_C * bias + after.shift_C).float()


def _value(graph: fx.GraphModule, node: Any) -> Tensor | None:
    if node is None:
        return None
    assert isinstance(node, fx.Node)
    assert node.op == "get_attr"
    value = attribute_of(graph, str(node.target))
    assert isinstance(value, Tensor)
    return value


def gives_affine(graph: fx.GraphModule, source: fx.Node) -> bool:
    """Whether a batch norm after `source` can go into it: a map that nothing else reads or calls."""
    operation = operation_of(graph, source)
    # A linear map's outputs are the channels of a batch norm only for tensors (B, C).
    fits = operation == "conv" or (operation == "linear" and len(shape_of(source)) == 2)
    return fits and len(source.users) == 1 and _called_once(graph, source)


def _takes_affine(graph: fx.GraphModule, user: fx.Node, node: fx.Node) -> bool:
    """Whether a batch norm can go into the linear map behind it."""
    fits = operation_of(graph, user) == "linear" and len(shape_of(node)) == 2
    return fits and _called_once(graph, user)


def _called_once(graph: fx.GraphModule, node: fx.Node) -> bool:
    targets = [other.target for other in graph.graph.nodes if other.op == "call_module"]
    return targets.count(node.target) == 1


def _fold_forward(module: Any, affine: Affine) -> None:
    weight = module.weight.detach().double()
    bias = 0.0 if module.bias is None else module.bias.detach().double()
    _set(module, weight * affine.scale_C, bias + weight @ affine.shift_C)


def _become_depthwise(graph: fx.GraphModule, node: fx.Node, source: fx.Node, affine: Affine) -> None:
    channels, rank = len(affine.scale_C), len(shape_of(source))
    conv = _DEPTHWISE[rank](channels, channels, kernel_size=1, groups=channels, device="meta")
    _set(conv, affine.scale_C.view(channels, *[1] * (rank - 1)), affine.shift_C)
    path = free_path(graph, f"{label_of(node)}.affine")
    graph.add_submodule(path, conv)
    with graph.graph.inserting_before(node):
        fresh = graph.graph.call_module(path, (source,))
    fresh.meta = dict(node.meta)
    node.replace_all_uses_with(fresh)


def _set(module: Any, weight: Tensor, bias: Tensor) -> None:
    module.weight = nn.Parameter(weight.detach().float())
    module.bias = nn.Parameter(bias.detach().float())
