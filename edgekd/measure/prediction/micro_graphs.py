"""The graphs of the calibration: chains of one operator each, at a few sizes, in fp32 and on codes.

All of them take the same input, a row of floats, of which each cuts off what it needs: so that one process
can measure them side by side. The time of one operator is that of its chain less that of the same graph with
an empty chain, divided by the length. A chain is what a network is; one operator alone would be mostly call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from edgekd.documents.prediction import NumberType, OperatorClass

ROW = 32768
"""Floats of the input: 128 KiB, which a core's own cache holds."""
_OPSET, _IR = 17, 8
TINY = 64
"""Elements up to which an operator is all launch: its work takes a fraction of a microsecond."""
_SCALE = np.array(0.05, np.float32)


@dataclass(frozen=True)
class Size:
    """One size of one class of operators.

    Attributes:
        kind: the class.
        number_type: what it computes with.
        name: what it is, with its size.
        operations: of one operator.
        width: products of one position; of one without products its operations.
        length: of the chain.
        base: what the time of the empty chain is taken from; graphs with the same one share it.
    """

    kind: OperatorClass
    number_type: NumberType
    name: str
    operations: int
    width: int
    length: int
    base: str

    @property
    def tiny(self) -> bool:
        """Whether it has next to no work, so that what it takes is its launch."""
        return int(self.base.split()[0]) <= TINY


class Chain:
    """Writes a chain node by node; in int8 every activation is Q and DQ with the zero point 0."""

    def __init__(self, shape: tuple[int, ...], number_type: NumberType) -> None:
        self.int8 = number_type == "int8"
        self.random = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        size = int(np.prod(shape))
        self.row = max(ROW, size)
        cut = self.op("Slice", "x", *map(self.integers, ([0], [size], [1])))
        self.tensor = self.codes(self.op("Reshape", cut, self.integers(list(shape))))
        self.former = self.tensor

    def append(self, tensor: str) -> None:
        """Go on from a tensor."""
        self.former, self.tensor = self.tensor, self.codes(tensor)

    def constant(self, value: np.ndarray) -> str:
        """Add a constant; returns its name."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(value, name))
        return name

    def integers(self, values: list[int]) -> str:
        """Add a constant of integers."""
        return self.constant(np.array(values, np.int64))

    def op(self, op_type: str, *inputs: str, **attributes: object) -> str:
        """Add a node; returns the tensor that it makes."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op_type, inputs, [name], name=f"{op_type}_{name}", **attributes))
        return name

    def codes(self, tensor: str) -> str:
        """A tensor in the type of the chain."""
        if not self.int8:
            return tensor
        scale, zero = self.constant(_SCALE), self.constant(np.array(0, np.uint8))
        return self.op("DequantizeLinear", self.op("QuantizeLinear", tensor, scale, zero), scale, zero)

    def weight(self, *shape: int, fan_in: int) -> str:
        """Weights that keep the size of what passes through them."""
        values = self.random.normal(size=shape) * np.sqrt(2 / fan_in)
        if not self.int8:
            return self.constant(values.astype(np.float32))
        scale = np.array(np.abs(values).max() / 127, np.float32)
        codes = self.constant(np.round(values / scale).astype(np.int8))
        return self.op("DequantizeLinear", codes, self.constant(scale), self.constant(np.array(0, np.int8)))

    def model(self) -> onnx.ModelProto:
        """The graph; it ends in one number, so that no output has to be made anew each time."""
        self.nodes.append(helper.make_node("ReduceMax", [self.tensor], ["y"], name="end", keepdims=0))
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, self.row])
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [])
        graph = helper.make_graph(self.nodes, "micro", [x], [y], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR)


Step = Callable[[Chain], str]
Build = Callable[[int], onnx.ModelProto]
"""A chain of so many operators as a graph."""


def _chain(shape: tuple[int, ...], number_type: NumberType, step: Step) -> Build:
    def build(length: int) -> onnx.ModelProto:
        chain = Chain(shape, number_type)
        for _ in range(length):
            chain.append(step(chain))
        return chain.model()

    return build


def benchmarks() -> Iterator[tuple[Size, Build]]:
    """Every size of every class, with what builds its chain."""
    for number_type in _TYPES:
        for channels, side in ((16, 1), (16, 16), (32, 32), (64, 8), (128, 16)):
            yield _convolution("conv", number_type, channels, side, kernel=3)
        for channels, side in ((16, 2), (16, 16), (32, 32), (128, 16), (512, 8)):
            yield _convolution("pointwise", number_type, channels, side, kernel=1)
        for channels, side in ((16, 2), (16, 16), (32, 32), (256, 8)):
            yield _convolution("depthwise", number_type, channels, side, kernel=3, group=channels)
        for rows, columns in ((1, 32), (16, 64), (64, 192), (64, 512)):
            yield _product(number_type, rows, columns)
        for channels, side in ((16, 2), (16, 16), (32, 32)):
            yield _addition(number_type, channels, side)
        for channels, side in ((16, 2), (16, 16), (32, 32)):
            yield _pool(number_type, channels, side)


_TYPES: tuple[NumberType, NumberType] = ("fp32", "int8")


def _convolution(
    kind: OperatorClass, number_type: NumberType, channels: int, side: int, *, kernel: int, group: int = 1
) -> tuple[Size, Build]:
    inner = channels // group * kernel**2

    def step(chain: Chain) -> str:
        weight = chain.weight(channels, channels // group, kernel, kernel, fan_in=inner)
        sizes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4}
        return chain.op("Relu", chain.op("Conv", chain.tensor, weight, group=group, **sizes))

    elements = channels * side**2
    size = Size(
        kind,
        number_type,
        f"{kind} {kernel}x{kernel} of {channels} channels at {side}x{side}, {number_type}",
        operations=2 * elements * inner,
        width=channels * inner,
        length=_length(elements, 2 * elements * inner),
        base=f"{elements} {number_type}",
    )
    return size, _chain((1, channels, side, side), number_type, step)


def _product(number_type: NumberType, rows: int, columns: int) -> tuple[Size, Build]:
    def step(chain: Chain) -> str:
        return chain.op("MatMul", chain.tensor, chain.weight(columns, columns, fan_in=2 * columns))

    size = Size(
        "gemm",
        number_type,
        f"gemm of {rows} rows by {columns}x{columns}, {number_type}",
        operations=2 * rows * columns**2,
        width=columns**2,
        length=_length(rows * columns, 2 * rows * columns**2),
        base=f"{rows * columns} {number_type}",
    )
    return size, _chain((rows, columns), number_type, step)


def _addition(number_type: NumberType, channels: int, side: int) -> tuple[Size, Build]:
    """Of two tensors, as a residual: each sum and the one before it."""

    def step(chain: Chain) -> str:
        return chain.op("Add", chain.tensor, chain.former)

    elements = channels * side**2
    size = Size(
        "elementwise",
        number_type,
        f"addition of {elements} elements, {number_type}",
        operations=elements,
        width=elements,
        length=_length(elements, elements),
        base=f"{elements} {number_type}",
    )
    return size, _chain((1, channels, side, side), number_type, step)


def _pool(number_type: NumberType, channels: int, side: int) -> tuple[Size, Build]:
    def step(chain: Chain) -> str:
        return chain.op("MaxPool", chain.tensor, kernel_shape=[3, 3], pads=[1] * 4)

    elements = channels * side**2
    size = Size(
        "pooling",
        number_type,
        f"3x3 pool of {elements} elements, {number_type}",
        operations=9 * elements,
        width=9 * elements,
        length=_length(elements, 9 * elements),
        base=f"{elements} {number_type}",
    )
    return size, _chain((1, channels, side, side), number_type, step)


def _length(elements: int, operations: int) -> int:
    """Many of the tiny ones, few of the large ones."""
    return 16 if elements <= TINY else 8 if operations < 20_000_000 else 4


def empty(elements: int, number_type: NumberType) -> onnx.ModelProto:
    """A graph whose chain is empty."""
    return Chain((1, elements, 1, 1), number_type).model()


def moves(elements: int, length: int) -> onnx.ModelProto:
    """A chain of operators that do little but read and write `elements` floats each."""
    chain = Chain((1, elements), "fp32")
    for number in range(length):
        chain.append(chain.op(("Neg", "Abs")[number % 2], chain.tensor))
    return chain.model()
