"""What a node of a traced graph means, however it was written: as a module, a function or a method.

One table for each spelling gives the operation's name; everything after it reads names, not spellings.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from edgekd.quantization.trace import LABEL, SHAPE


def global_average_pool(x_BCX: Tensor | fx.Proxy) -> Tensor:
    """Mean over all axes after the channels, kept as axes of size one: (B, C, ...) to (B, C, 1, ...)."""
    if isinstance(x_BCX, fx.Proxy):  # a graph that travels to another process is traced again there
        call = x_BCX.tracer.create_proxy("call_function", global_average_pool, (x_BCX,), {})
        return cast(Tensor, call)
    return x_BCX.mean(dim=tuple(range(2, x_BCX.ndim)), keepdim=True)


_MODULES: Mapping[type[nn.Module], str] = {
    nn.Conv1d: "conv",
    nn.Conv2d: "conv",
    nn.Conv3d: "conv",
    nn.Linear: "linear",
    nn.BatchNorm1d: "batch_norm",
    nn.BatchNorm2d: "batch_norm",
    nn.BatchNorm3d: "batch_norm",
    nn.SyncBatchNorm: "batch_norm",
    nn.Identity: "identity",
    nn.Dropout: "identity",
    nn.Dropout1d: "identity",
    nn.Dropout2d: "identity",
    nn.Dropout3d: "identity",
    nn.AlphaDropout: "identity",
    nn.ReLU: "relu",
    nn.ReLU6: "relu6",
    nn.Hardtanh: "hardtanh",
    nn.SiLU: "silu",
    nn.Sigmoid: "sigmoid",
    nn.Hardsigmoid: "hardsigmoid",
    nn.Hardswish: "hard_swish",
    nn.GELU: "gelu",
    nn.Tanh: "tanh",
    nn.LayerNorm: "layer_norm",
    nn.LeakyReLU: "leaky_relu",
    nn.Softmax: "softmax",
    nn.AvgPool1d: "average_pool",
    nn.AvgPool2d: "average_pool",
    nn.AvgPool3d: "average_pool",
    nn.AdaptiveAvgPool1d: "adaptive_average_pool",
    nn.AdaptiveAvgPool2d: "adaptive_average_pool",
    nn.AdaptiveAvgPool3d: "adaptive_average_pool",
    nn.MaxPool1d: "max_pool",
    nn.MaxPool2d: "max_pool",
    nn.MaxPool3d: "max_pool",
    nn.Flatten: "reshape",
    nn.Unflatten: "reshape",
    nn.ChannelShuffle: "reshape",
    nn.PixelShuffle: "reshape",
    nn.PixelUnshuffle: "reshape",
}

_FUNCTIONS: Mapping[Callable[..., Any], str] = {
    F.conv1d: "conv_function",
    F.conv2d: "conv_function",
    F.conv3d: "conv_function",
    F.linear: "linear_function",
    F.batch_norm: "batch_norm",
    F.dropout: "identity",
    F.relu: "relu",
    torch.relu: "relu",
    torch.relu_: "relu",
    F.relu_: "relu",
    F.relu6: "relu6",
    F.hardtanh: "hardtanh",
    F.silu: "silu",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    F.hardsigmoid: "hardsigmoid",
    F.hardswish: "hard_swish",
    F.gelu: "gelu",
    F.tanh: "tanh",
    torch.tanh: "tanh",
    F.layer_norm: "layer_norm",
    F.leaky_relu: "leaky_relu",
    F.softmax: "softmax",
    torch.softmax: "softmax",
    operator.add: "add",
    operator.iadd: "add",
    torch.add: "add",
    operator.mul: "mul",
    operator.imul: "mul",
    torch.mul: "mul",
    operator.matmul: "matmul",
    torch.matmul: "matmul",
    torch.bmm: "matmul",
    torch.cat: "cat",
    torch.concat: "cat",
    torch.mean: "mean",
    F.adaptive_avg_pool1d: "adaptive_average_pool",
    F.adaptive_avg_pool2d: "adaptive_average_pool",
    F.adaptive_avg_pool3d: "adaptive_average_pool",
    F.avg_pool1d: "average_pool",
    F.avg_pool2d: "average_pool",
    F.avg_pool3d: "average_pool",
    global_average_pool: "global_average_pool",
    F.max_pool1d: "max_pool",
    F.max_pool2d: "max_pool",
    F.max_pool3d: "max_pool",
    torch.max_pool1d: "max_pool",
    torch.max_pool2d: "max_pool",
    F.scaled_dot_product_attention: "attention",
    torch.flatten: "reshape",
    torch.reshape: "reshape",
    torch.transpose: "reshape",
    torch.permute: "reshape",
    torch.squeeze: "reshape",
    torch.unsqueeze: "reshape",
    torch.chunk: "split",
    torch.split: "split",
    torch.unbind: "split",
    F.channel_shuffle: "reshape",
    operator.getitem: "getitem",
}

_METHODS: Mapping[str, str] = {
    "relu": "relu",
    "relu_": "relu",
    "sigmoid": "sigmoid",
    "sigmoid_": "sigmoid",
    "softmax": "softmax",
    "add": "add",
    "add_": "add",
    "mul": "mul",
    "mul_": "mul",
    "matmul": "matmul",
    "bmm": "matmul",
    "mean": "mean",
    "contiguous": "identity",
    "flatten": "reshape",
    "reshape": "reshape",
    "view": "reshape",
    "transpose": "reshape",
    "permute": "reshape",
    "squeeze": "reshape",
    "unsqueeze": "reshape",
    "chunk": "split",
    "split": "split",
    "unbind": "split",
}


def operation_of(graph: fx.GraphModule, node: fx.Node) -> str:
    """Name of the operation of a node; its op or target where no table has it."""
    match node.op:
        case "call_module":
            module = graph.get_submodule(str(node.target))
            return _MODULES.get(type(module), type(module).__name__)
        case "call_function":
            return _FUNCTIONS.get(node.target, str(node.target)) if callable(node.target) else node.op
        case "call_method":
            return _METHODS.get(str(node.target), str(node.target))
        case _:
            return node.op


def is_tensor(value: Any) -> bool:
    """Whether an argument is a node with one tensor as its value."""
    return isinstance(value, fx.Node) and SHAPE in value.meta


def shape_of(node: fx.Node) -> tuple[int, ...]:
    """Shape of a node's tensor for the example batch."""
    shape: tuple[int, ...] = node.meta[SHAPE]
    return shape


def label_of(node: fx.Node) -> str:
    """What to call a node's tensor: where in the network it is made."""
    return str(node.meta.get(LABEL, node.name))


def is_silu(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node of a canonical graph is the product of x * sigmoid(x)."""
    if operation_of(graph, node) != "mul" or len(node.all_input_nodes) != 2:
        return False
    one, other = node.all_input_nodes
    return any(
        operation_of(graph, gate) == "sigmoid" and gate.args[0] is x
        for gate, x in ((one, other), (other, one))
    )


class _ShapeRecorder(fx.Interpreter):
    def run_node(self, node: fx.Node) -> Any:
        value = super().run_node(node)
        node.meta.pop(SHAPE, None)
        if isinstance(value, Tensor):
            node.meta[SHAPE] = tuple(value.shape)
        return value


def annotate(graph: fx.GraphModule, x: Tensor) -> Tensor:
    """Run the graph once, note every tensor's shape in node.meta, return the output."""
    with torch.no_grad():
        output = _ShapeRecorder(graph).run(x.clone())
    assert isinstance(output, Tensor)
    return output
