"""Faults to plant in a quantized graph, each at a place; None where a fault does not apply there.

Where a fault is, is read off the graph here, not asked of the code under test: a layer is called by the
operator that makes the tensor which a quantizer reads, past a Relu and the addition of a bias.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from tests.conversion.divergence.small import constant, copied, value_of

Plant = Callable[[onnx.ModelProto, str], onnx.ModelProto | None]
"""A copy of a graph with a fault at the node whose first output has this name."""


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def layer_of(model: onnx.ModelProto, tensor: str) -> str:
    """Name of the layer that gives a tensor."""
    made, constants = producers(model), {one.name for one in model.graph.initializer}
    while tensor in made:
        node = made[tensor]
        # Channels that are filled up belong to what they fill up.
        follows = node.op_type in ("Relu", "Clip", "Pad")
        goes_on = follows or (node.op_type == "Add" and node.input[1] in constants)
        if not goes_on:
            return node.name
        tensor = node.input[0]
    return f"input '{tensor}'"


def quantizers(model: onnx.ModelProto) -> list[str]:
    """The places of faults of activations: what every QuantizeLinear makes."""
    return [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]


def weights(model: onnx.ModelProto) -> list[str]:
    """The places of faults of weights: what every operator with one makes."""
    return [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]


def relus(model: onnx.ModelProto) -> list[str]:
    return [node.output[0] for node in model.graph.node if node.op_type == "Relu"]


def layer_at(model: onnx.ModelProto, place: str) -> str:
    """The layer where a fault at a place is."""
    node = producers(model)[place]
    return layer_of(model, node.input[0] if node.op_type in ("QuantizeLinear", "Relu") else place)


def halves(model: onnx.ModelProto, place: str) -> list[onnx.NodeProto]:
    """A QuantizeLinear and the nodes that open its codes."""
    return [producers(model)[place], *(node for node in model.graph.node if node.input[:1] == [place])]


def scaled(factor: float) -> Plant:
    def plant(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
        model = copied(model)
        pair = halves(model, place)
        scale = constant(model, value_of(model, pair[0].input[1]) * np.float32(factor))
        for node in pair:
            node.input[1] = scale
        return model

    return plant


def moved(first: int) -> Plant:
    """The zero point off by 8: of both halves, or only behind."""

    def plant(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
        model = copied(model)
        pair = halves(model, place)
        zero_point = value_of(model, pair[0].input[2])
        other = constant(model, (zero_point.astype(np.int64) + 8).astype(zero_point.dtype))
        for node in pair[first:]:
            node.input[2] = other
        return model

    return plant


def codes_of(model: onnx.ModelProto, place: str) -> tuple[onnx.NodeProto, int]:
    """The DequantizeLinear of an operator's weight, and its axis of output channels."""
    made = producers(model)
    node = made[made[place].input[1]]
    turned = node.op_type == "Transpose"
    node = made[node.input[0]] if turned else node
    axis = next((entry.i for entry in node.attribute if entry.name == "axis"), 1)
    return node, axis


def weight(change: Callable[[np.ndarray, np.ndarray, int], tuple[np.ndarray, np.ndarray] | None]) -> Plant:
    """`change` gets codes, scales and the axis of the scales, and gives codes and scales, or None."""

    def plant(model: onnx.ModelProto, place: str) -> onnx.ModelProto | None:
        model = copied(model)
        node, axis = codes_of(model, place)
        changed = change(value_of(model, node.input[0]), value_of(model, node.input[1]), axis)
        if changed is None:
            return None
        codes, scales = changed
        node.input[0], node.input[1] = constant(model, codes), constant(model, scales.astype(np.float32))
        return model

    return plant


def one_channel(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return codes, scales * np.where(np.arange(len(scales)) == 1, 4, 1)


def all_channels(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return codes, scales * 4


def not_folded(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return codes, scales * np.linspace(0.5, 2, len(scales))


def permuted_outputs(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    return np.roll(codes, 1, axis), scales


def permuted_inputs(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    return None if codes.shape[1 - axis] == 1 else (np.roll(codes, 1, 1 - axis), scales)


def transposed(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    return None if codes.shape[0] != codes.shape[1] else (np.ascontiguousarray(codes.swapaxes(0, 1)), scales)


def turned(codes: np.ndarray, scales: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray] | None:
    return (codes[..., ::-1, ::-1].copy(), scales) if codes.ndim == 4 and codes.shape[-1] > 1 else None


def moved_weight(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    """The zero point of a weight off by 8."""
    model = copied(model)
    node, _ = codes_of(model, place)
    node.input[2] = constant(model, value_of(model, node.input[2]) + np.int8(8))
    return model


def no_bias(model: onnx.ModelProto, place: str) -> onnx.ModelProto | None:
    model = copied(model)
    made = producers(model)
    node = made[place]
    if len(node.input) < 3:
        return None
    source = made.get(node.input[2])
    if source is None:
        node.input[2] = constant(model, np.zeros_like(value_of(model, node.input[2])))
    else:
        source.input[0] = constant(model, np.zeros_like(value_of(model, source.input[0])))
    return model


def no_relu(model: onnx.ModelProto, place: str) -> onnx.ModelProto:
    model = copied(model)
    relu = producers(model)[place]
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = relu.input[0] if name == place else name
    model.graph.node.remove(relu)
    return model


ACTIVATIONS: dict[str, Plant] = {
    "scale x 4": scaled(4),
    "scale / 4": scaled(0.25),
    "zero point of one half": moved(1),
    "zero point of both halves": moved(0),
}
WEIGHTS: dict[str, Plant] = {
    "one channel x 4": weight(one_channel),
    "all channels x 4": weight(all_channels),
    "batch norm not folded": weight(not_folded),
    "permuted outputs": weight(permuted_outputs),
    "permuted inputs": weight(permuted_inputs),
    "transposed": weight(transposed),
    "turned around": weight(turned),
    "zero point of a weight": moved_weight,
    "bias lost": no_bias,
}
