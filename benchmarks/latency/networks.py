"""The network of these benchmarks: a residual network of equal blocks, and the same with 5 % more blocks.

A block is two 3x3 convolutions of 32 channels on a 16x16 map, each with ReLU, and a residual addition: the
form of a ResNet's stage. Work is added block by block: 21 blocks are 5 % more of the very same work as 20.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE, CLASSES, OPSET = 32, 16, 10, 17
INPUTS = 4
BLOCKS = {0: 20, 5: 21, 10: 22, 100: 40}
"""Blocks by percent of more work."""


def write_network(path: Path, blocks: int) -> None:
    """Write the network of so many blocks; random weights, the same ones in the blocks that two share."""
    random = np.random.default_rng(0)
    weights: dict[str, npt.NDArray[np.float32]] = {"stem": _weight(random, CHANNELS, 3)}
    nodes = [_convolution("input", "stem", "x0")]
    for block in range(blocks):
        x, y, names = f"x{block}", f"y{block}", (f"first{block}", f"second{block}")
        weights |= {name: _weight(random, CHANNELS, CHANNELS) for name in names}
        nodes += [_convolution(x, names[0], y), helper.make_node("Relu", [y], [f"r{block}"])]
        nodes += [_convolution(f"r{block}", names[1], f"z{block}")]
        nodes += [helper.make_node("Add", [x, f"z{block}"], [f"sum{block}"])]
        nodes += [helper.make_node("Relu", [f"sum{block}"], [f"x{block + 1}"])]
    weights["head"] = np.random.default_rng(1).normal(0, 0.1, (CHANNELS, CLASSES)).astype(np.float32)
    nodes += [helper.make_node("GlobalAveragePool", [f"x{blocks}"], ["pooled"])]
    nodes += [helper.make_node("Flatten", ["pooled"], ["flat"])]
    nodes += [helper.make_node("MatMul", ["flat", "head"], ["logits"])]
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 3, SIDE, SIDE])
    found = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", CLASSES])
    tensors = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, f"blocks{blocks}", [given], [found], tensors)
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8), str(path)
    )


def write_inputs(path: Path) -> None:
    """Write the examples that are cycled, as .npy."""
    np.save(path, np.random.default_rng(2).normal(0, 1, (INPUTS, 3, SIDE, SIDE)).astype(np.float32))


def macs(blocks: int) -> int:
    """Multiply-accumulates of the network of so many blocks."""
    convolutions = 3 * CHANNELS + 2 * blocks * CHANNELS**2
    return 9 * SIDE**2 * convolutions + CHANNELS * CLASSES


def _weight(random: np.random.Generator, out_channels: int, in_channels: int) -> npt.NDArray[np.float32]:
    """Weights (out, in, 3, 3) that keep activations from growing or dying out."""
    spread = 0.1 / np.sqrt(9 * in_channels)
    return random.normal(0, spread, (out_channels, in_channels, 3, 3)).astype(np.float32)


def _convolution(x: str, weight: str, y: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [x, weight], [y], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
