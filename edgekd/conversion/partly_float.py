"""A canonical int8 graph with some of its layers in float, as it would be exported: for measuring latency.

Exporting takes seconds, this takes milliseconds. Tensors are named by their scales: the exporter names a
constant after the module that holds it, an activation's scale `PATH.scale` after its quantizer and a weight's
`PATH.scale_O` after its layer. It merges constants of equal values, so that the caller sees to it that no two
scales are equal.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx

from edgekd.conversion.remove_quantizers import QuantizedTensor, quantized_tensors, remove_quantizers
from edgekd.errors import ConversionError

_ACTIVATION, _WEIGHT = ".scale", ".scale_O"


def partly_float(
    canonical: onnx.ModelProto, *, quantizers: Collection[str], layers: Collection[str]
) -> onnx.ModelProto:
    """A copy in which some activations pass in float, and some layers have float weights.

    Args:
        canonical: as export_int8 writes it; no two scales are equal.
        quantizers: modules of activations' quantizers.
        layers: modules of layers.

    Raises:
        ConversionError: the graph has no such quantizer.
    """
    scales = {*(f"{path}{_ACTIVATION}" for path in quantizers), *(f"{path}{_WEIGHT}" for path in layers)}
    copy = onnx.ModelProto()
    copy.CopyFrom(canonical)
    _unshare_codes(copy)
    tensors = {tensor.name: _scale_of(tensor) for tensor in quantized_tensors(copy)}
    missing = scales - set(tensors.values())
    if missing:
        raise ConversionError(f"has no scale {min(missing)}", where="canonical graph")
    return remove_quantizers(copy, [name for name, scale in tensors.items() if scale in scales])


def _scale_of(tensor: QuantizedTensor) -> str:
    scale: str = (tensor.quantizer or tensor.dequantizers[0]).input[1]
    return scale


def _unshare_codes(model: onnx.ModelProto) -> None:
    """A constant of its own for every scale that opens it."""
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    opened: dict[str, str] = {}
    for node in graph.node:
        if node.op_type != "DequantizeLinear" or node.input[0] not in constants:
            continue
        codes, scale = node.input[:2]
        if opened.setdefault(codes, scale) != scale:
            own = graph.initializer.add()
            own.CopyFrom(constants[codes])
            own.name = f"{scale}.codes"
            node.input[0] = own.name
