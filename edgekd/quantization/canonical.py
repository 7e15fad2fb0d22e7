"""One spelling for each operation that the quantizer knows, and nothing in place.

After it: weights sit in nn.Conv1d/2d/3d and nn.Linear; ReLU, add, mul, matmul, cat are one function each; a
mean over all axes after the channels is `global_average_pool` (ONNX Runtime fuses that, and never
ReduceMean); SiLU is x * sigmoid(x) and attention is matmul, softmax, matmul, whose parts have int8 kernels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekd.errors import NetworkError
from edgekd.quantization.operations import (
    annotate,
    global_average_pool,
    is_silu,
    is_tensor,
    label_of,
    operation_of,
    shape_of,
)
from edgekd.quantization.trace import LABEL, attribute_of

_CONV_TYPES: Mapping[Any, Any] = {F.conv1d: nn.Conv1d, F.conv2d: nn.Conv2d, F.conv3d: nn.Conv3d}


def canonicalize(graph: fx.GraphModule, x: Tensor) -> None:
    """Rewrite a traced graph in place; it still computes the same.

    Raises:
        NetworkError: it does not, because the network changes a tensor in place and reads it again.
    """
    reference = annotate(graph, x)
    for node in list(graph.graph.nodes):
        _rewrite(graph, node)
    settle(graph)
    if not torch.allclose(annotate(graph, x), reference, rtol=1e-3, atol=1e-4 * float(reference.abs().max())):
        raise NetworkError(
            "the network changes a tensor in place and uses it again",
            where=type(graph).__name__,
            hint="write y = F.relu(x) rather than F.relu_(x)",
        )


def settle(graph: fx.GraphModule) -> None:
    """Drop nodes that nothing uses, check the graph and make its code."""
    graph.graph.eliminate_dead_code()
    graph.graph.lint()
    graph.recompile()


def replace_with_relu(graph: fx.GraphModule) -> None:
    """Make every ReLU6 of the graph a ReLU."""
    for node in list(graph.graph.nodes):
        if operation_of(graph, node) == "relu6":
            _replace(node, graph.graph.call_function, F.relu, (node.args[0],))
    settle(graph)


def replace_silu(graph: fx.GraphModule) -> None:
    """Make every SiLU of the graph, x * sigmoid(x), a HardSwish."""
    for node in list(graph.graph.nodes):
        if is_silu(graph, node):
            x = next(one for one in node.args if operation_of(graph, one) != "sigmoid")
            _replace(node, graph.graph.call_function, F.hardswish, (x,))
    settle(graph)


def replace_relu6(network: nn.Module) -> nn.Module:
    """Put nn.ReLU where the network has nn.ReLU6; changes the network and returns it.

    For students that will be quantized, before they are trained: an int8 scale does the clipping, and ONNX
    Runtime keeps a convolution in float when a Clip inside its quantized range follows it.
    """
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.ReLU6):
                setattr(module, name, nn.ReLU(inplace=child.inplace))
    return network


def _rewrite(graph: fx.GraphModule, node: fx.Node) -> None:
    call = graph.graph.call_function
    match operation_of(graph, node):
        case "identity":
            node.replace_all_uses_with(_argument(node, 0, "input"))
        case "relu":
            _replace(node, call, F.relu, (_argument(node, 0, "input"),))
        case "relu6":
            _replace(node, call, F.relu6, (_argument(node, 0, "input"),))
        case "hard_swish":
            _replace(node, call, F.hardswish, (_argument(node, 0, "input"),))
        case "hardtanh":
            _rewrite_hardtanh(graph, node)
        case "silu":
            _rewrite_silu(graph, node)
        case "add":
            _rewrite_join(graph, node, torch.add)
        case "mul":
            _rewrite_join(graph, node, torch.mul)
        case "matmul":
            _replace(node, call, torch.matmul, (node.args[0], _argument(node, 1, "other", "mat2")))
        case "mean":
            _rewrite_mean(graph, node)
        case "adaptive_average_pool" | "average_pool":
            _rewrite_average_pool(graph, node)
        case "attention":
            _rewrite_attention(graph, node)
        case "linear_function":
            _rewrite_linear(graph, node)
        case "conv_function":
            _rewrite_conv(graph, node)
        case _:
            pass


def _argument(node: fx.Node, index: int, *names: str, default: Any = None) -> Any:
    """An argument of a call, by position or by any of its names."""
    if len(node.args) > index:
        return node.args[index]
    return next((node.kwargs[name] for name in names if name in node.kwargs), default)


def _replace(node: fx.Node, make: Callable[..., fx.Node], *call: Any) -> fx.Node:
    """Put a new node in the place of `node`."""
    with node.graph.inserting_before(node):
        fresh = make(*call)
    fresh.meta = dict(node.meta)
    node.replace_all_uses_with(fresh)
    node.graph.erase_node(node)
    return fresh


def _rewrite_hardtanh(graph: fx.GraphModule, node: fx.Node) -> None:
    limits: tuple[Any, Any]
    if node.op == "call_module":
        module = graph.get_submodule(str(node.target))
        limits = (module.min_val, module.max_val)
    else:
        limits = (_argument(node, 1, "min_val", default=-1.0), _argument(node, 2, "max_val", default=1.0))
    if limits == (0, 6):
        _replace(node, graph.graph.call_function, F.relu6, (node.args[0],))


def _rewrite_silu(graph: fx.GraphModule, node: fx.Node) -> None:
    with graph.graph.inserting_before(node):
        gate = graph.graph.call_function(torch.sigmoid, (node.args[0],))
    gate.meta = dict(node.meta, **{LABEL: f"{label_of(node)}.sigmoid"})
    _replace(node, graph.graph.call_function, torch.mul, (node.args[0], gate))


def _rewrite_join(graph: fx.GraphModule, node: fx.Node, function: Callable[..., Any]) -> None:
    """Out of place, when both operands are tensors: sizes are added and multiplied as they are."""
    operands = (node.args[0], _argument(node, 1, "other"))
    if any(is_tensor(operand) for operand in operands):
        extra = {name: value for name, value in node.kwargs.items() if name not in ("other", "input")}
        _replace(node, graph.graph.call_function, function, operands, extra)


def _rewrite_mean(graph: fx.GraphModule, node: fx.Node) -> None:
    x, dims = _argument(node, 0, "input"), _argument(node, 1, "dim")
    if not is_tensor(x) or dims is None:
        return
    rank = len(shape_of(x))
    axes = sorted(axis % rank for axis in ([dims] if isinstance(dims, int) else dims))
    if rank < 3 or axes != list(range(2, rank)):
        return
    if _argument(node, 2, "keepdim", default=False):
        _replace(node, graph.graph.call_function, global_average_pool, (x,))
    else:
        _pool_and_flatten(graph, node, x)


def _pool_and_flatten(graph: fx.GraphModule, node: fx.Node, x: fx.Node) -> None:
    with graph.graph.inserting_before(node):
        pooled = graph.graph.call_function(global_average_pool, (x,))
    pooled.meta[LABEL] = label_of(node)
    _replace(node, graph.graph.call_function, torch.flatten, (pooled, 1))


def _rewrite_average_pool(graph: fx.GraphModule, node: fx.Node) -> None:
    """A pool whose window is the whole map is a global one."""
    x = _argument(node, 0, "input")
    if len(shape_of(x)) < 3 or any(size != 1 for size in shape_of(node)[2:]):
        return
    if operation_of(graph, node) == "average_pool" and not _covers(graph, node, shape_of(x)[2:]):
        return
    _replace(node, graph.graph.call_function, global_average_pool, (x,))


def _covers(graph: fx.GraphModule, node: fx.Node, spatial: Sequence[int]) -> bool:
    if node.op == "call_module":
        pool = graph.get_submodule(str(node.target))
        kernel, padding = pool.kernel_size, pool.padding
    else:
        kernel, padding = _argument(node, 1, "kernel_size"), _argument(node, 3, "padding", default=0)
    sizes = tuple(kernel) if isinstance(kernel, list | tuple) else (kernel,) * len(spatial)
    return sizes == tuple(spatial) and padding in (0, (0,) * len(spatial))


def _rewrite_attention(graph: fx.GraphModule, node: fx.Node) -> None:
    """softmax(q k^T * scale) v; with a mask it stays as it is, in float."""
    plain = not (_argument(node, 3, "attn_mask") or _argument(node, 5, "is_causal", default=False))
    if not plain or node.kwargs.get("enable_gqa"):
        return
    query, key, value = (_argument(node, index, name) for index, name in enumerate(("query", "key", "value")))
    scale = _argument(node, 6, "scale") or 1 / math.sqrt(shape_of(query)[-1])
    call = graph.graph.call_function
    with graph.graph.inserting_before(node):
        scores = call(torch.matmul, (query, call(torch.transpose, (key, -2, -1))))
        weights = call(F.softmax, (call(torch.mul, (scores, scale)),), {"dim": -1})
    scores.meta[LABEL] = f"{label_of(node)}.scores"
    weights.meta[LABEL] = f"{label_of(node)}.softmax"
    _replace(node, call, torch.matmul, (weights, value))


def _rewrite_linear(graph: fx.GraphModule, node: fx.Node) -> None:
    weight, bias = (_parameter(graph, _argument(node, i, name)) for i, name in ((1, "weight"), (2, "bias")))
    if weight is None or (bias is None) != (_argument(node, 2, "bias") is None):
        return
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    _place_module(graph, node, linear, weight, bias)


def _rewrite_conv(graph: fx.GraphModule, node: fx.Node) -> None:
    weight, bias = (_parameter(graph, _argument(node, i, name)) for i, name in ((1, "weight"), (2, "bias")))
    if weight is None or (bias is None) != (_argument(node, 2, "bias") is None):
        return
    groups = _argument(node, 6, "groups", default=1)
    conv = _CONV_TYPES[node.target](
        weight.shape[1] * groups,
        weight.shape[0],
        tuple(weight.shape[2:]),
        stride=_argument(node, 3, "stride", default=1),
        padding=_argument(node, 4, "padding", default=0),
        dilation=_argument(node, 5, "dilation", default=1),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    _place_module(graph, node, conv, weight, bias)


def _parameter(graph: fx.GraphModule, node: Any) -> nn.Parameter | None:
    """The parameter that a node reads, or None when it is computed."""
    if not isinstance(node, fx.Node) or node.op != "get_attr":
        return None
    value = attribute_of(graph, str(node.target))
    return value if isinstance(value, nn.Parameter) else None


def _place_module(
    graph: fx.GraphModule, node: fx.Node, module: nn.Module, weight: nn.Parameter, bias: nn.Parameter | None
) -> None:
    module.register_parameter("weight", weight)
    module.register_parameter("bias", bias)
    parent = str(_argument(node, 1, "weight").target).rpartition(".")[0]
    path = free_path(graph, f"{parent}.{type(module).__name__.lower()}".removeprefix("."))
    graph.add_submodule(path, module)
    _replace(node, graph.graph.call_module, path, (node.args[0],))


def free_path(graph: fx.GraphModule, wanted: str) -> str:
    """The wanted module path, or it with a number when it is taken."""
    path, number = wanted, 1
    while _has(graph, path):
        number += 1
        path = f"{wanted}{number}"
    return path


def _has(graph: fx.GraphModule, path: str) -> bool:
    parent, _, name = path.rpartition(".")
    try:
        return hasattr(graph.get_submodule(parent), name)
    except AttributeError:
        return False
