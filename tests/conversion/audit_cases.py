"""Small graphs, one a cause: what ONNX Runtime leaves in float, or runs slowly or wrongly in int8."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import helper

from tests.conversion.graphs import Writer

Make = Callable[[], onnx.ModelProto]
Body = Callable[[Writer, str], str]


def unsigned() -> Writer:
    """A writer whose quantizers have uint8 codes with zero point 128, and `u0` for 0."""
    write = Writer()
    write.constant("zero", np.uint8(128))
    write.constant("u0", np.uint8(0))
    return write


def image(make: Body) -> Make:
    """A graph on quantized images."""

    def graph() -> onnx.ModelProto:
        write = unsigned()
        return write.graph(make(write, write.quantize("input")), rank=4)

    return graph


def signed(make: Body) -> Make:
    """A graph on images quantized to int8."""

    def graph() -> onnx.ModelProto:
        write = Writer()
        return write.graph(make(write, write.quantize("input")), rank=4)

    return graph


def rows(make: Body, rank: int = 2, width: int = 4) -> Make:
    """A graph on quantized rows (rank 2), or on sequences of them (rank 3)."""

    def graph() -> onnx.ModelProto:
        write = unsigned()
        shape = (width,) if rank == 2 else (5, width)
        return write.graph(make(write, write.quantize("input")), shape=shape, rank=rank)

    return graph


def opened(write: Writer, codes: np.ndarray, scale: object, zero: object = None, axis: int = 0) -> str:
    """Constant codes and their DequantizeLinear."""
    number = len(write.constants)
    names = [write.constant(f"codes_{number}", codes)]
    names.append(write.constant(f"codes_scale_{number}", np.asarray(scale, np.float32)))
    if zero is not None:
        names.append(write.constant(f"codes_zero_{number}", np.asarray(zero, codes.dtype)))
    return write.op("DequantizeLinear", *names, axis=axis)


def codes(write: Writer, *shape: int, dtype: type = np.int8) -> np.ndarray:
    """Codes of a weight."""
    low, high = (-127, 128) if dtype == np.int8 else (1, 255)
    return write.random.integers(low, high, shape).astype(dtype)


def conv_with(write: Writer, x: str, weight: str, *bias: str) -> str:
    """A quantized 3x3 convolution."""
    return write.quantize(write.op("Conv", x, weight, *bias, kernel_shape=[3, 3], pads=[1] * 4))


def computed(write: Writer, value: object) -> str:
    """A number that depends on the input, though it never changes."""
    nothing = write.op(
        "Mul", write.op("ReduceMax", "input", keepdims=0), write.constant("none", np.float32(0))
    )
    return write.op("Add", write.constant(f"computed_{len(write.constants)}", value), nothing)


def clip(write: Writer, x: str, scale: float) -> str:
    bounds = [write.constant(f"bound_{value}", np.float32(value)) for value in (0, 6)]
    step = write.constant("step", np.float32(scale))
    return write.quantize(write.op("Clip", write.conv(x, 3, 8), *bounds), step, "u0")


def silu(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    return write.quantize(write.op("Mul", y, write.op("Sigmoid", y)))


def activation(kind: str) -> Make:
    return image(lambda write, x: write.quantize(write.op(kind, write.conv(x, 3, 8))))


def unquantized_add(write: Writer, x: str) -> str:
    skip = write.quantize(write.conv(x, 3, 8))
    return write.quantize(write.op("Add", write.conv(x, 3, 8), skip))


def read_twice(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    return write.op("Mul", write.quantize(write.op("Relu", y), zero="u0"), y)


def dedicated(write: Writer, x: str) -> str:
    y = write.op("Relu", write.conv(x, 3, 8))
    other = write.constant("other", np.float32(0.05))
    left, right = write.quantize(y, zero="u0"), write.quantize(y, other, "u0")
    return write.quantize(write.op("Add", left, right))


def batch_norm(write: Writer, x: str) -> str:
    statistics = [write.constant(f"statistic_{index}", np.ones(8, np.float32)) for index in range(4)]
    return write.quantize(write.op("BatchNormalization", write.conv(x, 3, 8), *statistics))


def wide_weight(write: Writer, x: str) -> str:
    return conv_with(write, x, opened(write, np.ones((8, 3, 3, 3), np.int16), 0.08))


def wide_output(write: Writer, x: str) -> str:
    return write.quantize(write.conv(x, 3, 8), zero=write.constant("z16", np.uint16(0)))


def wide_input(write: Writer, x: str) -> str:
    wide = write.quantize("input", zero=write.constant("z16", np.uint16(0)))
    return write.quantize(write.conv(wide, 3, 8))


def wrong_axis(write: Writer, x: str) -> str:
    x = write.quantize(write.conv(x, 3, 8))
    weight = opened(write, codes(write, 8, 8, 3, 3), np.linspace(0.001, 0.01, 8), np.zeros(8), axis=1)
    return conv_with(write, x, weight, write.bias(8))


def computed_scale(write: Writer, x: str) -> str:
    scale = computed(write, np.float32(0.01))
    return write.quantize(write.conv(write.quantize("input", scale), 3, 8))


def input_per_channel(write: Writer, x: str) -> str:
    parts = (
        write.constant("scales", np.full(3, 0.05, np.float32)),
        write.constant("zs", np.full(3, 128, np.uint8)),
    )
    y = write.op("QuantizeLinear", "input", *parts, axis=1)
    return write.quantize(write.conv(write.op("DequantizeLinear", y, *parts, axis=1), 3, 8))


def int8_bias(write: Writer, x: str) -> str:
    return conv_with(write, x, write.weight(8, 3, 3, 3), opened(write, codes(write, 8), 0.01))


def int32_conv(write: Writer, x: str, factor: float) -> str:
    """A convolution whose int32 bias has `factor` times the scale that it should have."""
    weight = opened(write, codes(write, 8, 3, 3, 3), np.full(8, 0.01), np.zeros(8))
    bias = opened(write, np.arange(8, dtype=np.int32), np.full(8, 0.01 * 0.08 * factor))
    return write.op("Conv", x, weight, bias, kernel_shape=[3, 3], pads=[1] * 4)


def int32_bias(write: Writer, x: str, factor: float) -> str:
    return write.quantize(int32_conv(write, x, factor))


def int4_weight(write: Writer, x: str) -> str:
    values = write.random.integers(-7, 8, 216).tolist()
    write.constants["int4"] = helper.make_tensor("int4", onnx.TensorProto.INT4, [8, 3, 3, 3], values)
    scale = write.constant("int4_scale", np.full(8, 0.01, np.float32))
    return conv_with(write, x, write.op("DequantizeLinear", "int4", scale, axis=0), write.bias(8))


def output_twice(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    write.quantize(y)
    return y


def output_before_relu(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    write.quantize(write.op("Relu", y))
    return y


def hard_swish(write: Writer, x: str) -> str:
    y = write.conv(x, 3, 8)
    return write.quantize(write.op("Mul", y, write.op("HardSigmoid", y, alpha=1 / 6, beta=0.5)))


def two_gemms() -> onnx.ModelProto:
    """int8 codes with two readers, and others with one: QGemm would write what it does not read."""
    write = Writer()
    x = write.quantize("input")
    left, right = (write.quantize(write.gemm(x, 4, 5)) for _ in range(2))
    return write.graph(write.quantize(write.op("Add", left, right)), shape=(4,))


def signed_gemm() -> onnx.ModelProto:
    write = Writer()
    x = write.quantize("input")
    made = write.op("Add", write.gemm(x, 4, 5), write.op("ReduceMax", x, keepdims=0))
    return write.graph(made, shape=(4,))


def shared_input(write: Writer, x: str) -> str:
    """As a shortcut of a ResNet: one tensor, two convolutions."""
    left, right = (write.quantize(write.conv(x, 3, 8)) for _ in range(2))
    return write.quantize(write.op("Add", left, right))


def no_zero_point(write: Writer, x: str) -> str:
    def quantize(y: str) -> str:
        made = write.op("QuantizeLinear", y, "scale", output_dtype=onnx.TensorProto.INT8)
        return write.op("DequantizeLinear", made, "scale")

    return quantize(write.conv(quantize("input"), 3, 8))


def half() -> onnx.ModelProto:
    write = Writer()
    write.constant("scale", np.float16(0.05))
    weight = [
        write.constant("codes", codes(write, 8, 3, 3, 3)),
        write.constant("ws", np.full(8, 0.01, np.float16)),
    ]
    y = conv_with(write, write.quantize("input"), write.op("DequantizeLinear", *weight, axis=0))
    model = write.graph(y, rank=4)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    return model


def weight_only() -> onnx.ModelProto:
    """A product with a weight of 4 bits in blocks of 32, beside something quantized."""
    write = unsigned()
    packed = [
        write.constant("packed", np.full((8, 1, 16), 0x88, np.uint8)),
        write.constant("ps", np.ones(8, np.float32)),
    ]
    y = write.op(
        "MatMulNBits",
        write.quantize("input"),
        *packed,
        domain="com.microsoft",
        K=32,
        N=8,
        bits=4,
        block_size=32,
    )
    return write.graph(y, shape=(32,), rank=2)


def opened_blocks() -> onnx.ModelProto:
    """The same as a DequantizeLinear with blocks, which the runtime turns into MatMulNBits."""
    write = unsigned()
    values = write.random.integers(-7, 8, 64 * 32).tolist()
    write.constants["int4"] = helper.make_tensor("int4", onnx.TensorProto.INT4, [64, 32], values)
    scale = write.constant("int4_scale", np.full((4, 32), 0.01, np.float32))
    weight = write.op("DequantizeLinear", "int4", scale, axis=0, block_size=16)
    return write.graph(write.op("MatMul", "input", weight), shape=(64,), rank=2)


FIRST = "its output goes into"
CAUSES: dict[str, tuple[Make, str, str]] = {
    "hard swish": (
        activation("HardSwish"),
        "activation-not-folded",
        "HardSwish is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "silu": (
        image(silu),
        "activation-not-folded",
        "SiLU is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "leaky": (
        activation("LeakyRelu"),
        "activation-not-folded",
        "LeakyRelu is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "gelu": (
        activation("Gelu"),
        "activation-not-folded",
        "Gelu is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "relu6": (
        image(lambda write, x: clip(write, x, 0.08)),
        "clip-range",
        "the Clip [0, 6] after it is narrower than its quantizer [0, 20.4]",
    ),
    "relu in a signed grid": (
        image(lambda write, x: write.quantize(write.op("Relu", write.conv(x, 3, 8)))),
        "relu-zero-point",
        "the Relu after it is quantized to uint8 with zero point 128",
    ),
    "float input": (
        image(lambda write, x: write.quantize(write.conv("input", 3, 8))),
        "input-not-quantized",
        "its input 'input' has no DequantizeLinear",
    ),
    "float input from an operator": (
        image(lambda write, x: write.quantize(write.conv(write.op("Tanh", x), 3, 8))),
        "input-not-quantized",
        "its input 'Tanh_2', made by Tanh '/Tanh_2', has no DequantizeLinear",
    ),
    "layout in between": (
        rows(lambda write, x: write.gemm(write.op("Flatten", x), 4, 5)),
        "layout-before-operator",
        "Flatten '/Flatten_2' is between it and its input's DequantizeLinear",
    ),
    "float output": (
        image(lambda write, x: write.conv(x, 3, 8)),
        "float-output",
        "its output leaves the graph in float",
    ),
    "output in float and in codes": (
        image(output_twice),
        "float-output",
        "its output leaves the graph in float besides being read",
    ),
    "output before a relu": (
        image(output_before_relu),
        "float-output",
        "its output leaves the graph in float besides being read",
    ),
    "hard swish in parts": (
        image(hard_swish),
        "activation-not-folded",
        "HardSwish is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "unquantized add": (
        image(unquantized_add),
        "add-not-quantized",
        f"{FIRST} Add '/Add_8' without a QuantizeLinear",
    ),
    "read in float": (
        image(read_twice),
        "add-not-quantized",
        f"{FIRST} Mul '/Mul_7' without a QuantizeLinear",
    ),
    "mean": (
        image(lambda write, x: write.quantize(write.op("ReduceMean", write.conv(x, 3, 8), keepdims=1))),
        "reduce-mean",
        f"{FIRST} ReduceMean '/ReduceMean_4' without a QuantizeLinear",
    ),
    "another reader": (
        image(lambda write, x: write.quantize(write.op("Abs", write.conv(x, 3, 8)))),
        "float-reader",
        f"{FIRST} Abs '/Abs_4' without a QuantizeLinear",
    ),
    "dedicated quantizers": (
        image(dedicated),
        "dedicated-quantizers",
        "its output has 2 quantizers, one for each reader",
    ),
    "batch norm": (
        image(batch_norm),
        "batch-norm-not-folded",
        "BatchNormalization '/BatchNormalization_4' follows it",
    ),
    "transposed convolution": (
        image(
            lambda write, x: write.quantize(write.op("ConvTranspose", x, write.weight(3, 8, 3, 3, axis=1)))
        ),
        "no-int8-kernel",
        "ONNX Runtime's CPU provider has no int8 ConvTranspose",
    ),
    "computed weight": (
        image(lambda write, x: write.quantize(write.op("Conv", x, write.op("Tanh", "input")))),
        "weight-not-constant",
        "its weight is not a constant",
    ),
    "int16 weight": (image(wide_weight), "weight-type", "its weight is int16 and its input uint8"),
    "int4 weight": (image(int4_weight), "weight-type", "its weight is int4 and its input uint8"),
    "uint16 input": (image(wide_input), "activation-type", "its input is quantized to uint16"),
    "uint16 output": (image(wide_output), "mixed-types", "its input is uint8 and its output uint16"),
    "half precision": (
        half,
        "half-precision-scales",
        "the scales of 'DequantizeLinear_1' are float16; ONNX Runtime's int8 kernels take float32",
    ),
    "scales on the wrong axis": (
        image(wrong_axis),
        "weight-axis",
        "its weight has its scales on axis 1, not on axis 0",
    ),
    "computed scale": (
        image(computed_scale),
        "scale-not-constant",
        "a scale or zero point of its input is not a constant",
    ),
    "input per channel": (
        image(input_per_channel),
        "activation-per-channel",
        "its input has 3 scales, not one",
    ),
    "int8 bias": (image(int8_bias), "bias-type", "its bias is quantized to int8, not to int32"),
    "int32 bias of another scale": (
        image(lambda write, x: int32_bias(write, x, 2.0)),
        "bias-scale",
        "its int32 bias has another scale than that of input times weight",
    ),
    "computed bias": (
        image(
            lambda write, x: conv_with(
                write, x, write.weight(8, 3, 3, 3), computed(write, np.ones(8, np.float32))
            )
        ),
        "bias-not-constant",
        "its bias is computed, so that the runtime cannot quantize it",
    ),
    "gemm's float bias": (
        rows(lambda write, x: write.gemm(x, 4, 5)),
        "gemm-bias",
        "its output is float and its bias is not quantized",
    ),
    "gemm's float bias behind int8 codes that are read twice": (
        signed_gemm,
        "gemm-bias",
        "its output is float and its bias is not quantized",
    ),
    "gemm's factor": (
        rows(lambda write, x: write.op("Gemm", x, write.weight(5, 4), write.bias(5), transB=1, beta=2.0)),
        "gemm-factor",
        "it has a factor beta",
    ),
    "float weight": (
        rows(lambda write, x: write.op("MatMul", x, write.float_weight(4, 5)), rank=3),
        "weight-not-quantized",
        "its weight is not quantized",
    ),
    "weight alone": (
        rows(lambda write, x: write.op("MatMul", "input", write.weight(4, 5, axis=1)), rank=3),
        "weight-only",
        "only the weight is quantized: its codes are opened to compute in float",
    ),
    "weight of a convolution alone": (
        image(lambda write, x: write.quantize(write.conv(write.op("Abs", "input"), 3, 8))),
        "input-not-quantized",
        "its input 'Abs_2', made by Abs '/Abs_2', has no DequantizeLinear",
    ),
    "a right bias before something else": (
        image(lambda write, x: write.quantize(write.op("Elu", int32_conv(write, x, 1.0)))),
        "activation-not-folded",
        "Elu is between it and the next QuantizeLinear; ONNX Runtime folds only Relu and Clip",
    ),
    "blocks of 4 bits": (
        opened_blocks,
        "weight-only",
        "only the weight is quantized: its codes are opened to compute in float",
    ),
    "weight of 4 bits alone": (
        weight_only,
        "weight-only",
        "only the weight is quantized: its codes are opened to compute in float",
    ),
}
"""A graph with one operator in float, the cause's id, and the cause."""

STAYS = "ONNX Runtime does not move such codes to uint8, for which alone it has kernels on this processor"
ON_X86: dict[str, tuple[Make, str]] = {
    "input read twice": (signed(shared_input), f"the int8 codes of its input have 2 readers; {STAYS}"),
    "output read twice": (
        signed(
            lambda write, x: (lambda y: write.quantize(write.op("Add", y, y)))(
                write.quantize(write.conv(x, 3, 8))
            )
        ),
        f"the int8 codes of its output have 2 readers; {STAYS}",
    ),
    "gemm": (two_gemms, f"the int8 codes of its input have 2 readers; {STAYS}"),
    "no zero point": (
        signed(no_zero_point),
        f"the int8 codes of its input have a quantizer without a zero point; {STAYS}",
    ),
}
"""Graphs whose convolutions stay in float where only uint8 codes have kernels."""

INT8: dict[str, tuple[Make, str]] = {
    "narrow range under a clip": (image(lambda write, x: clip(write, x, 6 / 255)), "QLinearConv"),
    "quantizers around the activation": (
        image(lambda write, x: write.quantize(write.op("LeakyRelu", write.quantize(write.conv(x, 3, 8))))),
        "QLinearConv",
    ),
    "an int32 bias": (image(lambda write, x: int32_bias(write, x, 1.0)), "QLinearConv"),
    "relu at the least code": (
        signed(
            lambda write, x: write.quantize(
                write.op("Relu", write.conv(x, 3, 8)), zero=write.constant("least", np.int8(-128))
            )
        ),
        "QLinearConv",
    ),
    "gemm that reads and writes int8": (
        lambda: (
            lambda write: write.graph(write.quantize(write.gemm(write.quantize("input"), 4, 5)), shape=(4,))
        )(Writer()),
        "QGemm",
    ),
    "gemm without bias": (
        rows(lambda write, x: write.op("Gemm", x, write.weight(5, 4), transB=1)),
        "QGemm",
    ),
    "gemm before a quantizer": (rows(lambda write, x: write.quantize(write.gemm(x, 4, 5))), "QGemm"),
    "matrix product": (
        rows(lambda write, x: write.op("MatMul", x, write.weight(4, 5, axis=1)), rank=3),
        "MatMulIntegerToFloat",
    ),
}
"""A graph with one operator in int8, and what it runs as."""
