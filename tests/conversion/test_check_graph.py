from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekd.conversion.check_graph import check_graph, read_graph
from edgekd.conversion.dialects import to_dialect
from edgekd.conversion.specs import load_spec
from edgekd.documents.runtime import TargetRuntime
from edgekd.errors import BundleError, ConversionError
from tests.conversion.graphs import CASES, Writer, conv_relu, residual


def problems(model: onnx.ModelProto, runtime: TargetRuntime = "tensorrt") -> list[str]:
    with pytest.raises(ConversionError) as caught:
        check_graph(model, load_spec(runtime), "graph.onnx")
    first, *rest = caught.value.message.splitlines()
    count = "1 rule" if len(rest) == 1 else f"{len(rest)} rules"
    assert first == f"breaks {count} of the dialect {load_spec(runtime).dialect}"
    assert caught.value.where == "graph.onnx"
    return [line.removeprefix("  ") for line in rest]


def with_constant(model: onnx.ModelProto, name: str, value: object) -> onnx.ModelProto:
    """The graph with another value for an initializer."""
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), name))
            return model
    raise KeyError(name)


def written(make: Callable[[Writer], str]) -> onnx.ModelProto:
    write = Writer()
    return write.graph(make(write), rank=4)


@pytest.mark.parametrize("name", CASES)
def test_canonical_graphs_pass(name: str) -> None:
    check_graph(CASES[name](), load_spec("tensorrt"), name)


def test_opset() -> None:
    write = Writer(opset=20)
    model = write.graph(write.quantize("input"), rank=4)
    assert problems(model) == ["opset 20; wanted: 21"]


@pytest.mark.parametrize("scale", [0.0, -0.1, float("nan"), float("inf")])
def test_scales_are_positive_numbers(scale: float) -> None:
    model = with_constant(written(lambda write: write.quantize("input")), "scale", np.float32(scale))
    assert problems(model) == [
        "QuantizeLinear '/QuantizeLinear_0': a scale that is not a positive number",
        "DequantizeLinear '/DequantizeLinear_1': a scale that is not a positive number",
    ]


def test_scales_and_zero_points_are_constants() -> None:
    def computed(write: Writer) -> str:
        scale = write.op("ReduceMax", "input", keepdims=0)
        return write.op("DequantizeLinear", write.op("QuantizeLinear", "input", scale), scale)

    assert problems(written(computed)) == [
        "QuantizeLinear '/QuantizeLinear_1': its scale is not a constant",
        "QuantizeLinear '/QuantizeLinear_1': its zero point is missing or not a constant",
        "DequantizeLinear '/DequantizeLinear_2': its scale is not a constant",
    ]


def test_zero_point_and_type_of_an_activation() -> None:
    model = with_constant(written(lambda write: write.quantize("input")), "zero", np.int8(3))
    assert problems(model) == ["QuantizeLinear '/QuantizeLinear_0': zero point 3; allowed: 0"]
    assert problems(model, "onnxruntime") == [
        "QuantizeLinear '/QuantizeLinear_0': int8; allowed: uint8",
        "QuantizeLinear '/QuantizeLinear_0': zero point 3; allowed: 0, 128",
    ]


def test_activations_are_quantized_per_tensor() -> None:
    def per_channel(write: Writer) -> str:
        scale = write.constant("scales", np.full(3, 0.1, np.float32))
        return write.quantize("input", scale, write.constant("zeros", np.zeros(3, np.int8)))

    assert problems(written(per_channel)) == [
        "QuantizeLinear '/QuantizeLinear_0': has 3 scales; wanted: one, per tensor"
    ]


def test_a_quantizer_and_its_dequantizer_agree() -> None:
    def torn(write: Writer) -> str:
        other = write.constant("other", np.float32(0.2))
        return write.op(
            "DequantizeLinear", write.op("QuantizeLinear", "input", "scale", "zero"), other, "zero"
        )

    assert problems(written(torn)) == [
        "DequantizeLinear '/DequantizeLinear_1': its scale or zero point is not that of '/QuantizeLinear_0'"
    ]


def test_codes_are_read_by_dequantizers_alone() -> None:
    def codes(write: Writer) -> str:
        pooled = write.op(
            "MaxPool", write.op("QuantizeLinear", "input", "scale", "zero"), kernel_shape=[2, 2]
        )
        return write.op("DequantizeLinear", pooled, "scale", "zero")

    assert problems(written(codes)) == [
        "QuantizeLinear '/QuantizeLinear_0': is read by MaxPool; wanted: DequantizeLinear alone",
        "DequantizeLinear '/DequantizeLinear_2': reads neither a quantized tensor nor a constant",
    ]


def test_one_quantizer_a_tensor() -> None:
    def dedicated(write: Writer) -> str:
        return write.op("Add", write.quantize("input"), write.quantize("input"))

    assert problems(written(dedicated)) == [
        "tensor 'input': has 2 quantizers; wanted: one that its readers share"
    ]


def test_float_weights_are_not_quantized_in_the_graph() -> None:
    def float_weight(write: Writer) -> str:
        return write.op("Conv", write.quantize("input"), write.quantize(write.float_weight(8, 3, 3, 3)))

    assert problems(written(float_weight)) == [
        "QuantizeLinear '/QuantizeLinear_2': quantizes a constant; wanted: the constant in int8"
    ]


def test_type_zero_point_and_axis_of_weights() -> None:
    def weights(write: Writer) -> str:
        x, name = write.quantize("input"), write.constant
        unsigned = name("unsigned", np.ones((8, 3, 3, 3), np.uint8)), name("zeros", np.ones(8, np.uint8))
        scales = name("scales", np.full(8, 0.1, np.float32))
        y = write.op("Conv", x, write.op("DequantizeLinear", unsigned[0], scales, unsigned[1], axis=0))
        square = name("square", np.ones((8, 8, 1, 1), np.int8))
        y = write.op("Conv", y, write.op("DequantizeLinear", square, scales, axis=1))
        return write.op("Conv", y, write.op("DequantizeLinear", square, "scale", "zero"))

    assert problems(written(weights)) == [
        "DequantizeLinear '/DequantizeLinear_2': a weight in uint8; allowed: int8",
        "DequantizeLinear '/DequantizeLinear_2': a weight with a zero point other than 0",
        "DequantizeLinear '/DequantizeLinear_4': a weight with scales on axis 1; "
        "wanted: a scale for each output channel, axis 0",
        "DequantizeLinear '/DequantizeLinear_6': a weight with one scale; "
        "wanted: a scale for each output channel, axis 0",
    ]


@pytest.mark.parametrize(
    ("op_type", "shape", "attributes", "axis"),
    [
        ("Gemm", (4, 5), {}, 1),
        ("Gemm", (5, 4), {"transB": 1}, 0),
        ("MatMul", (4, 5), {}, 1),
    ],
)
def test_output_channels_of_a_product(
    op_type: str, shape: tuple[int, int], attributes: dict[str, int], axis: int
) -> None:
    def model(on: int) -> onnx.ModelProto:
        write = Writer()
        product = write.op(op_type, write.quantize("input"), write.weight(*shape, axis=on), **attributes)
        return write.graph(product, shape=(4,))

    check_graph(model(axis), load_spec("tensorrt"), "graph")
    assert problems(model(1 - axis)) == [
        f"DequantizeLinear '/DequantizeLinear_2': a weight with scales on axis {1 - axis}; "
        f"wanted: a scale for each output channel, axis {axis}"
    ]


def test_a_transposed_weight_keeps_its_axis() -> None:
    def model(axis: int) -> onnx.ModelProto:
        write = Writer()
        weight = write.op("Transpose", write.weight(5, 4, axis=axis))
        return write.graph(write.op("MatMul", write.quantize("input"), weight), shape=(4,))

    check_graph(model(0), load_spec("tensorrt"), "graph")
    assert "axis 1; wanted: a scale for each output channel, axis 0" in problems(model(1))[0]


def test_an_int32_bias_where_it_is_forbidden() -> None:
    unsigned = to_dialect(residual(), "onnxruntime-u8")
    where = "DequantizeLinear 'Gemm_27_bias_dequantized'"
    found = [line for line in problems(unsigned, "tensorrt") if "int32" in line]
    assert found == [f"{where}: an int32 constant for Gemm; allowed for the bias of: none"]


def test_an_int32_bias_at_a_scale_of_its_own() -> None:
    unsigned = to_dialect(residual(), "onnxruntime-u8")
    scale = next(tensor.name for tensor in unsigned.graph.initializer if tensor.name.endswith("_bias_scale"))
    assert problems(with_constant(unsigned, scale, np.full(10, 0.001, np.float32)), "onnxruntime") == [
        "DequantizeLinear 'Gemm_27_bias_dequantized': "
        "its scale is not that of input times weight of '/Gemm_27'"
    ]


def test_an_int32_bias_of_a_convolution() -> None:
    def biased(write: Writer) -> str:
        bias = write.op("DequantizeLinear", write.constant("b", np.ones(8, np.int32)), "scale")
        return write.op("Conv", "input", write.weight(8, 3, 1, 1), bias)

    assert problems(written(biased), "onnxruntime") == [
        "DequantizeLinear '/DequantizeLinear_0': an int32 constant for Conv; allowed for the bias of: Gemm"
    ]


def test_a_graph_that_onnx_refuses() -> None:
    model = conv_relu()
    model.graph.node[0].op_type = "Quantise"
    with pytest.raises(ConversionError) as caught:
        check_graph(model, load_spec("tensorrt"), "graph.onnx")
    assert str(caught.value).startswith(
        "graph.onnx: is not a valid ONNX graph: No Op registered for Quantise"
    )


def test_shapes_that_do_not_fit_are_found() -> None:
    write = Writer()
    model = write.graph(write.op("MatMul", "input", write.float_weight(5, 2)), shape=(4,))
    with pytest.raises(ConversionError, match=r"^graph.onnx: is not a valid ONNX graph: "):
        check_graph(model, load_spec("tensorrt"), "graph.onnx")


def test_read_graph_checks_what_it_reads(tmp_path: Path) -> None:
    path = tmp_path / "graph.onnx"
    onnx.save(residual(), path)
    assert read_graph(path) == residual()
    broken = residual()
    broken.graph.node[3].input[0] = "nowhere"
    onnx.save(broken, path)
    with pytest.raises(BundleError) as caught:
        read_graph(path)
    assert caught.value.message.startswith(
        "is not a valid ONNX graph: Nodes in a graph must be topologically"
    )
    assert "\n" not in caught.value.message
