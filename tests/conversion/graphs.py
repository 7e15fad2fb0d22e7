"""Small canonical int8 graphs, node by node: int8, zero point 0, float biases, one quantizer a tensor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper, numpy_helper

SCALE = 0.08
"""Scale of every activation: 127 steps reach 10, which random weights of unit gain do not."""
IMAGE = (3, 12, 12)
CLASSES = 10


class Writer:
    """Writes nodes one after the other; each method returns the name of the tensor that it made."""

    def __init__(self, seed: int = 0, opset: int = 21) -> None:
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}
        self.constant("zero", np.int8(0))
        self.constant("scale", np.float32(SCALE))

    def constant(self, name: str, value: object) -> str:
        self.constants[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def op(self, op_type: str, *inputs: str, domain: str = "", **attributes: object) -> str:
        output = f"{op_type}_{len(self.nodes)}"
        node = helper.make_node(op_type, inputs, [output], name=f"/{output}", domain=domain, **attributes)
        self.nodes.append(node)
        return output

    def quantize(self, x: str, scale: str = "scale", zero: str = "zero") -> str:
        return self.op("DequantizeLinear", self.op("QuantizeLinear", x, scale, zero), scale, zero)

    def float_weight(self, *shape: int) -> str:
        values = self.random.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        return self.constant(f"weight_{len(self.constants)}", values.astype(np.float32))

    def weight(self, *shape: int, axis: int = 0) -> str:
        """int8 codes and a DequantizeLinear with a scale for each channel of `axis`; unit gain."""
        number = len(self.constants)
        codes = self.constant(f"weight_{number}", self.random.integers(-127, 128, shape).astype(np.int8))
        gain = self.random.uniform(0.8, 1.2, shape[axis]) / 73 / np.sqrt(np.prod(shape) / shape[axis])
        scale = self.constant(f"weight_scale_{number}", gain.astype(np.float32))
        zero = self.constant(f"weight_zero_{number}", np.zeros(shape[axis], np.int8))
        return self.op("DequantizeLinear", codes, scale, zero, axis=axis)

    def bias(self, size: int) -> str:
        return self.constant(
            f"bias_{len(self.constants)}", self.random.normal(size=size).astype(np.float32) / 5
        )

    def conv(self, x: str, c_in: int, c_out: int, kernel: int = 3, group: int = 1) -> str:
        weight = self.weight(c_out, c_in // group, kernel, kernel)
        sizes = {"kernel_shape": [kernel, kernel], "pads": [kernel // 2] * 4}
        return self.op("Conv", x, weight, self.bias(c_out), group=group, **sizes)

    def block(self, x: str, c_in: int, c_out: int, kernel: int = 3, group: int = 1) -> str:
        return self.quantize(self.op("Relu", self.conv(x, c_in, c_out, kernel, group)))

    def gemm(self, x: str, c_in: int, c_out: int) -> str:
        return self.op("Gemm", x, self.weight(c_out, c_in), self.bias(c_out), transB=1)

    def head(self, x: str, channels: int) -> str:
        pooled = self.quantize(self.op("GlobalAveragePool", x))
        return self.gemm(self.quantize(self.op("Flatten", pooled, axis=1)), channels, CLASSES)

    def graph(self, output: str, shape: tuple[int, ...] = IMAGE, rank: int = 2) -> onnx.ModelProto:
        info = helper.make_tensor_value_info
        free = ["batch", *(f"d{axis}" for axis in range(1, rank))]
        graph = helper.make_graph(
            self.nodes,
            "student",
            [info("input", onnx.TensorProto.FLOAT, ["batch", *shape])],
            [info(output, onnx.TensorProto.FLOAT, free)],
            list(self.constants.values()),
        )
        opsets = [helper.make_opsetid("", self.opset), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def conv_relu() -> onnx.ModelProto:
    write = Writer()
    return write.graph(write.block(write.quantize("input"), 3, 8), rank=4)


def conv() -> onnx.ModelProto:
    write = Writer()
    return write.graph(write.quantize(write.conv(write.quantize("input"), 3, 8)), rank=4)


def residual() -> onnx.ModelProto:
    write = Writer()
    x = write.block(write.quantize("input"), 3, 8)
    y = write.quantize(write.conv(write.block(x, 8, 8), 8, 8))
    return write.graph(write.head(write.quantize(write.op("Relu", write.op("Add", y, x))), 8))


def linear_residual() -> onnx.ModelProto:
    """As in MobileNetV2: no Relu after the addition, so its output may be negative."""
    write = Writer()
    x = write.quantize(write.conv(write.quantize("input"), 3, 8))
    y = write.quantize(write.conv(write.block(x, 8, 8, kernel=1), 8, 8, kernel=1))
    return write.graph(write.head(write.quantize(write.op("Add", y, x)), 8))


def depthwise() -> onnx.ModelProto:
    write = Writer()
    x = write.block(write.quantize("input"), 3, 16)
    return write.graph(write.head(write.block(write.block(x, 16, 16, group=16), 16, 24, kernel=1), 24))


def concat() -> onnx.ModelProto:
    write = Writer()
    x = write.block(write.quantize("input"), 3, 8)
    both = write.op("Concat", write.block(x, 8, 8, kernel=1), write.block(x, 8, 8), axis=1)
    return write.graph(write.head(write.quantize(both), 16))


def maxpool() -> onnx.ModelProto:
    write = Writer()
    x = write.block(write.quantize("input"), 3, 8)
    pooled = write.quantize(write.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2]))
    return write.graph(write.head(write.block(pooled, 8, 8), 8))


def gate() -> onnx.ModelProto:
    """Squeeze and excitation: a product with a sigmoid."""
    write = Writer()
    x = write.block(write.quantize("input"), 3, 8)
    squeezed = write.quantize(write.op("GlobalAveragePool", x))
    gates = write.quantize(write.op("Sigmoid", write.quantize(write.conv(squeezed, 8, 8, kernel=1))))
    return write.graph(write.head(write.quantize(write.op("Mul", x, gates)), 8))


def matmul() -> onnx.ModelProto:
    """As in a transformer: products without bias in them, the weight stored transposed or not."""
    write = Writer()
    x = write.quantize("input")
    x = write.op("Add", write.op("MatMul", x, write.weight(12, 16, axis=1)), write.bias(16))
    transposed = write.op("Transpose", write.weight(CLASSES, 16), perm=[1, 0])
    return write.graph(write.op("MatMul", write.quantize(x), transposed), shape=(5, 12), rank=3)


CASES: dict[str, Callable[[], onnx.ModelProto]] = {
    "conv": conv,
    "conv_relu": conv_relu,
    "residual": residual,
    "linear_residual": linear_residual,
    "depthwise": depthwise,
    "concat": concat,
    "maxpool": maxpool,
    "gate": gate,
    "matmul": matmul,
}
"""Every canonical graph by name."""


def inputs(model: onnx.ModelProto, count: int = 16) -> np.ndarray:
    """Inputs of unit variance that no quantizer clips."""
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(7).normal(size=(count, *shape)).astype(np.float32).clip(-4, 4)
