"""Small graphs for every runtime, and what they compute in NumPy."""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

SIZE, CLASSES = 8, 3


def dense(path: Path, seed: int = 0, batch: int | str = "batch") -> np.ndarray:
    """Write relu(x) W for W of a seed; returns W. The weights apart, every such graph is the same."""
    weights = np.random.default_rng(seed).normal(size=(SIZE, CLASSES)).astype(np.float32)
    nodes = [
        helper.make_node("Relu", ["input"], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "W"], ["logits"]),
    ]
    save(path, nodes, {"input": (batch, SIZE)}, {"logits": (batch, CLASSES)}, {"W": weights})
    return weights


def two_inputs(path: Path, batch: int | str = "batch") -> None:
    """Write the difference of two inputs."""
    shape = (batch, SIZE)
    save(
        path,
        [helper.make_node("Sub", ["a", "b"], ["logits"])],
        {"a": shape, "b": shape},
        {"logits": shape},
        {},
    )


def save(path: Path, nodes: list, inputs: dict, outputs: dict, weights: dict) -> None:
    info = [
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in some.items()]
        for some in (inputs, outputs)
    ]
    constants = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", *info, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)


def inputs(path: Path, count: int = 9) -> np.ndarray:
    """Write inputs (count, SIZE) as .npy, and return them."""
    x_NX = np.random.default_rng(7).normal(size=(count, SIZE)).astype(np.float32)
    np.save(path, x_NX)
    return x_NX
