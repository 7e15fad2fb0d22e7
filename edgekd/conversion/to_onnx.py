"""Write a network as an ONNX file: the folded fp32 graph, or the canonical int8 graph.

The canonical graph is TensorRT's form: int8 weights as initializers with one scale an output channel, int8
activations with one scale, every zero point 0, biases in float. Other dialects are derived from it.

Q and DQ are written as they are through torch.onnx.ops.symbolic in a copy made for the export: the
exporter's own translation of fake quantization keeps weights in float and fails on a dynamic batch.
The file holds nothing of the machine that wrote it: the exporter notes source lines and class names at
every node, and those are removed. The same weights give the same bytes.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import io
import logging
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import torch
from torch import Tensor, fx, nn

from edgekd.documents.common import InputSpec
from edgekd.errors import ConversionError
from edgekd.files import write_bytes
from edgekd.quantization.canonical import settle
from edgekd.quantization.fake_quant import ActivationQuantizer, WeightQuantizer, apply_op
from edgekd.quantization.hard_swish import Int8HardSwish
from edgekd.quantization.network import QuantizedNetwork
from edgekd.quantization.operations import global_average_pool
from edgekd.quantization.prepare import fold_network
from edgekd.quantization.scheme import activation_scale
from edgekd.quantization.trace import attribute_of

OUTPUT = "logits"
"""Name of every graph's output."""
_BATCH = "batch"
_SCOPES = "pkg.torch.onnx.name_scopes"
"""Where the exporter notes the path of modules that a node came from, as a Python list of names."""
_ROOT = "network."
"""Start of every path: the tracer's name for the network itself."""
_EXAMPLES = 2
_QDQ_VERSION = 21


def export_fp32(network: nn.Module, input: InputSpec, path: Path, *, opset: int) -> None:
    """Write the folded fp32 graph of a network.

    Args:
        network: takes (B, *input.shape) float32 and returns logits (B, K); left as it is.
        input: name and shape of the graph's input.
        path: file to write, atomically.
        opset: ONNX opset, 18 or later.

    Raises:
        NetworkError: the network cannot be traced.
        ConversionError: the graph cannot be written as ONNX.
        StorageError: the file cannot be written.
    """
    device = next(network.parameters()).device
    graph = fold_network(network, torch.zeros(_EXAMPLES, *input.shape, device=device))
    _export(graph, input, path, opset)


def export_int8(quantized: QuantizedNetwork, input: InputSpec, path: Path, *, opset: int) -> None:
    """Write the canonical int8 graph of a quantized network, with its present weights and scales.

    Args:
        quantized: calibrated; left as it is.
        input: name and shape of the graph's input.
        path: file to write, atomically.
        opset: ONNX opset, 21 or later.

    Raises:
        ConversionError: there are no scales, a weight is not finite, or the graph cannot be written as ONNX.
        StorageError: the file cannot be written.
    """
    quantized.scales()
    _export(_with_qdq(quantized.graph), input, path, opset)


class _QuantizeDequantize(nn.Module):
    """Stands for an activation's quantizer: the pair of operators, with int8 zero point 0."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, quantizer: ActivationQuantizer) -> None:
        super().__init__()
        self.register_buffer("scale", activation_scale(quantizer.amax).detach())
        self.register_buffer("zero_point", torch.zeros_like(self.scale, dtype=torch.int8))

    def forward(self, x: Tensor, repeated: bool = False) -> Tensor:
        codes = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            (x, self.scale, self.zero_point),
            dtype=torch.int8,
            shape=x.shape,
            version=_QDQ_VERSION,
        )
        return _dequantize(codes, self.scale, self.zero_point, {})


class _QuantizedOp(nn.Module):
    """Stands for a convolution or linear map: its weight is int8 codes behind a DequantizeLinear."""

    bias: Tensor | None
    codes: Tensor
    scale_O: Tensor
    zero_point_O: Tensor

    def __init__(self, quantizer: WeightQuantizer, input_amax: Tensor) -> None:
        super().__init__()
        self.op = quantizer.op
        _, bias = quantizer.shipped()
        self.register_buffer("bias", None if bias is None else bias.detach())
        scale_O = quantizer.weight_scale(input_amax)
        self.register_buffer("codes", quantizer.codes(input_amax))
        self.register_buffer("scale_O", scale_O)
        self.register_buffer("zero_point_O", torch.zeros_like(scale_O, dtype=torch.int8))

    def forward(self, x: Tensor) -> Tensor:
        weight = _dequantize(self.codes, self.scale_O, self.zero_point_O, {"axis": 0})
        return apply_op(self.op, x, weight, self.bias)


def _dequantize(codes: Tensor, scale: Tensor, zero_point: Tensor, axis: dict[str, Any]) -> Tensor:
    return torch.onnx.ops.symbolic(
        "DequantizeLinear",
        (codes, scale, zero_point),
        axis,
        dtype=torch.float32,
        shape=codes.shape,
        version=_QDQ_VERSION,
    )


def _global_average_pool(x_BCX: Tensor) -> Tensor:
    return torch.onnx.ops.symbolic(
        "GlobalAveragePool",
        (x_BCX,),
        dtype=x_BCX.dtype,
        shape=(*x_BCX.shape[:2], *[1] * (x_BCX.ndim - 2)),
        version=1,
    )


def _with_qdq(quantized: fx.GraphModule) -> fx.GraphModule:
    """A copy of the graph in which quantizers are Q/DQ pairs, and weights int8 codes behind a DQ.

    A layer that is called twice becomes two: its codes follow the scale of what it reads.
    """
    graph = copy.deepcopy(quantized).cpu()
    layers = {path: module for path, module in graph.named_modules() if isinstance(module, WeightQuantizer)}
    called: Counter[str] = Counter()
    for node in graph.graph.nodes:
        if node.op == "call_module" and node.target in layers:
            (source, amax), path = node.args, node.target
            _check_finite(layers[path], path)
            called[path] += 1
            node.target = path if called[path] == 1 else _free_path(graph, f"{path}_call{called[path]}")
            layer = _QuantizedOp(layers[path], attribute_of(graph, amax.target))
            graph.set_submodule(node.target, layer)
            node.args = (source,)
    settle(graph)
    for path, module in list(graph.named_modules()):
        if isinstance(module, ActivationQuantizer):
            _check_finite(module, module.label)
            graph.set_submodule(path, _QuantizeDequantize(module))
        elif isinstance(module, Int8HardSwish):
            module.quantizing = False  # its grid is that of one dialect, which writes it itself
    return graph


def _free_path(graph: fx.GraphModule, path: str) -> str:
    taken = dict(graph.named_modules())
    while path in taken:
        path += "_"
    return path


def _check_finite(quantizer: WeightQuantizer | ActivationQuantizer, path: str) -> None:
    for name, value in quantizer.state_dict().items():
        if not torch.isfinite(value).all():
            part = name.rpartition(".")[2].removesuffix("_O")
            raise ConversionError(f"the {part} holds a value that is not finite", where=path)


def _export(graph: fx.GraphModule, input: InputSpec, path: Path, opset: int) -> None:
    graph = graph.cpu().eval()
    for node in graph.graph.nodes:
        if node.target is global_average_pool:
            node.target = _global_average_pool
    graph.recompile()
    write_bytes(path, onnx_of(graph, input, opset=opset).SerializeToString(deterministic=True))


def onnx_of(network: nn.Module, input: InputSpec, *, opset: int) -> onnx.ModelProto:
    """A network on the CPU, in evaluation, as the exporter writes it: any batch, nodes named after modules.

    Raises:
        ConversionError: the network cannot be written as ONNX.
    """
    model = _to_proto(network, torch.zeros(_EXAMPLES, *input.shape), input.name, opset)
    return _anonymous(_named_by_module(model))


def _to_proto(graph: nn.Module, x: Tensor, input_name: str, opset: int) -> onnx.ModelProto:
    try:
        with _quiet():
            program = torch.onnx.export(
                graph,
                (x,),
                dynamo=True,
                input_names=[input_name],
                output_names=[OUTPUT],
                dynamic_shapes=({0: torch.export.Dim(_BATCH)},),
                opset_version=opset,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ConversionError(
            f"the network cannot be written as ONNX: {_cause(error)}",
            where=type(graph).__name__,
            hint="replace the operation that it names, or use another network",
        ) from error
    assert program is not None
    return program.model_proto


def _cause(error: BaseException) -> str:
    """The first line of what the exporter stumbled over, without its page of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's progress on standard output, its log and its own deprecation warnings."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _named_by_module(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each node named after the module of the network that it came from, so that an audit can be read."""
    taken: set[str] = set()
    for node in model.graph.node:
        scopes = {entry.key: entry.value for entry in node.metadata_props}.get(_SCOPES, "[]")
        path = [scope for scope in ast.literal_eval(scopes) if f"{scope}.".startswith(_ROOT)]
        name = f"{path[-1].removeprefix(_ROOT)}/{node.op_type}" if path else node.op_type
        node.name = name if name not in taken else f"{name}_{len(taken)}"
        taken.add(node.name)
    return model


def _anonymous(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without documentation strings and metadata: they hold source lines and paths of this machine."""
    graph = model.graph
    for part in (
        model,
        graph,
        *graph.node,
        *graph.initializer,
        *graph.value_info,
        *graph.input,
        *graph.output,
    ):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model
