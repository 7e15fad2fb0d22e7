"""What runs as one, and its work, against counts by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edgekd.errors import UsageError
from edgekd.measure.prediction.fused_graph import fuse
from tests.measure.prediction.graphs import UINT8, Writer

IMAGE = ("batch", 4, 8, 8)
ELEMENTS = 4 * 8 * 8


def kinds(model, runtime="onnxruntime", in_int8=None):
    return [(one.kind, one.number_type, *one.op_types) for one in fuse(model, runtime, in_int8)]


def test_a_convolution_takes_in_batch_norm_and_activation():
    writer = Writer()
    made = writer.op("Conv", "x", writer.constant((6, 4, 3, 3)), writer.constant((6,)), pads=[1] * 4)
    made = writer.op("BatchNormalization", made, *(writer.constant((6,)) for _ in range(4)))
    (one,) = fuse(writer.model(IMAGE, writer.op("Relu", made)), "onnxruntime")
    assert one.op_types == ("Conv", "BatchNormalization", "Relu")
    assert one.name == "Conv0"
    assert one.macs == 6 * 64 * 4 * 9
    assert one.operations == 2 * one.macs + 2 * 6 * 64
    assert one.weight_bytes == 4 * (6 * 4 * 9 + 6)
    assert one.read_bytes == 4 * ELEMENTS + one.weight_bytes
    assert one.written_bytes == 4 * 6 * 64
    assert one.moved_bytes == 4 * ELEMENTS + 4 * 6 * 64
    assert one.width == 6 * 4 * 9


def test_the_later_of_two_branches_adds_the_residual():
    writer = Writer()
    first = writer.conv("x", 4, 4)
    made = writer.op("Relu", writer.op("Add", first, writer.conv("x", 4, 4, kernel=1)))
    conv, pointwise = fuse(writer.model(IMAGE, made), "onnxruntime")
    assert (conv.op_types, conv.read_bytes) == (("Conv",), 4 * (ELEMENTS + 144))
    assert pointwise.kind == "pointwise"
    assert pointwise.op_types == ("Conv", "Add", "Relu")
    assert pointwise.read_bytes == 4 * (2 * ELEMENTS + 16)


def test_a_tensor_that_others_read_is_not_taken_in():
    writer = Writer()
    conv = writer.conv("x", 4, 4)
    model = writer.model(IMAGE, writer.op("Relu", conv), writer.op("Sigmoid", conv))
    assert [one.op_types for one in fuse(model, "tensorrt")] == [("Conv",), ("Relu",), ("Sigmoid",)]


def test_an_output_of_the_graph_is_not_taken_in():
    writer = Writer()
    conv = writer.conv("x", 4, 4)
    model = writer.model(IMAGE, conv, writer.op("Relu", conv))
    assert [one.op_types for one in fuse(model, "onnxruntime")] == [("Conv",), ("Relu",)]


@pytest.mark.parametrize(
    ("group", "c_out", "kernel", "kind", "width"),
    [
        (1, 8, 3, "conv", 8 * 4 * 9),
        (1, 8, 1, "pointwise", 8 * 4),
        (4, 4, 3, "depthwise", 4 * 9),
        (4, 8, 3, "depthwise", 8 * 9),
        (2, 8, 3, "conv", 8 * 2 * 9 // 2),
        (2, 8, 1, "conv", 8 * 2 // 2),
    ],
)
def test_classes_of_convolutions(group, c_out, kernel, kind, width):
    writer = Writer()
    (one,) = fuse(writer.model(IMAGE, writer.conv("x", 4, c_out, kernel, group=group)), "onnxruntime")
    assert one.kind == kind
    assert one.macs == c_out * 64 * (4 // group) * kernel**2
    assert one.width == width


def test_matrix_products():
    writer = Writer()
    gemm = writer.op("Gemm", "x", writer.constant((10, 6)), writer.constant((10,)), transB=1)
    (one,) = fuse(writer.model((3, 6), gemm), "onnxruntime")
    assert (one.kind, one.macs, one.width) == ("gemm", 3 * 6 * 10, 60)
    assert (one.read_bytes, one.written_bytes) == (4 * (18 + 60 + 10), 120)
    writer = Writer()
    made = writer.op("MatMul", writer.op("MatMul", "x", "x"), writer.constant((5, 7)))
    attention, product = fuse(writer.model((2, 3, 5, 5), made), "onnxruntime")
    assert (attention.macs, attention.weight_bytes, attention.read_bytes) == (6 * 125, 0, 4 * 150)
    assert (product.macs, product.weight_bytes, product.width) == (6 * 5 * 5 * 7, 140, 35)


def test_a_transposed_convolution_spreads_each_input():
    writer = Writer()
    made = writer.op("ConvTranspose", "x", writer.constant((4, 6, 2, 2)), strides=[2, 2])
    (one,) = fuse(writer.model(IMAGE, made), "onnxruntime")
    assert (one.macs, one.written_bytes) == (ELEMENTS * 6 * 4, 4 * 6 * 16 * 16)


def test_neighbors_element_by_element_run_as_one():
    writer = Writer()
    made = writer.op("Mul", "x", writer.op("Sigmoid", "x"))
    (one,) = fuse(writer.model(IMAGE, made), "onnxruntime")
    assert (one.kind, one.op_types) == ("elementwise", ("Sigmoid", "Mul"))
    assert one.operations == 11 * ELEMENTS
    assert (one.read_bytes, one.written_bytes) == (4 * ELEMENTS, 4 * ELEMENTS)
    assert one.launches == 2
    (one,) = fuse(writer.model(IMAGE, made), "tensorrt")
    assert one.launches == 1


def test_pools_moves_and_views():
    writer = Writer()
    pool = writer.op("MaxPool", "x", kernel_shape=[2, 2], strides=[2, 2])
    mean = writer.op("GlobalAveragePool", writer.op("Transpose", pool, perm=[0, 1, 3, 2]))
    model = writer.model(IMAGE, writer.op("Flatten", mean))
    found = fuse(model, "onnxruntime")
    assert [one.kind for one in found] == ["pooling", "data movement", "pooling", "data movement"]
    assert [one.operations for one in found] == [4 * 64, 0, 64, 0]
    assert [one.read_bytes for one in found] == [4 * 256, 4 * 64, 4 * 64, 0]
    assert [one.written_bytes for one in found] == [4 * 64, 4 * 64, 16, 0]


def quantized_block():
    """x -> Q -> DQ -> Conv -> Relu -> Q -> DQ -> (Conv -> Q -> DQ) + itself -> Relu -> Q -> DQ -> Gemm."""
    writer = Writer()
    first = writer.codes(writer.op("Relu", writer.qconv(writer.codes("x"), 4, 4)))
    second = writer.codes(writer.qconv(first, 4, 4))
    added = writer.codes(writer.op("Relu", writer.op("Add", second, first)))
    flat = writer.op("Flatten", added)
    return writer.model(IMAGE, writer.op("Gemm", flat, writer.weight(10, ELEMENTS), transB=1))


def test_quantizers_around_an_operator_are_its_own():
    found = fuse(quantized_block(), "onnxruntime")
    assert kinds(quantized_block()) == [
        ("elementwise", "fp32", "QuantizeLinear"),
        ("conv", "int8", "Conv", "Relu", "QuantizeLinear"),
        ("conv", "int8", "Conv", "QuantizeLinear"),
        ("elementwise", "int8", "Add", "Relu", "QuantizeLinear"),
        ("data movement", "fp32", "Flatten"),
        ("gemm", "int8", "Gemm"),
    ]
    _, conv, _, add, _, gemm = found
    assert (conv.read_bytes, conv.weight_bytes, conv.written_bytes) == (ELEMENTS + 144, 144, ELEMENTS)
    assert conv.operations == 2 * conv.macs
    assert (add.read_bytes, add.written_bytes, add.operations) == (2 * ELEMENTS, ELEMENTS, ELEMENTS)
    assert (gemm.read_bytes, gemm.written_bytes) == (ELEMENTS + 10 * ELEMENTS, 40)


def test_what_the_audit_found_in_float_runs_in_float():
    model = quantized_block()
    convs = [number for number, node in enumerate(model.graph.node) if node.op_type == "Conv"]
    found = kinds(model, in_int8=frozenset(convs[1:]))
    assert found[:4] == [
        ("elementwise", "fp32", "QuantizeLinear"),
        ("elementwise", "fp32", "DequantizeLinear"),
        ("conv", "fp32", "Conv", "Relu"),
        ("elementwise", "fp32", "QuantizeLinear"),
    ]
    assert ("conv", "int8", "Conv", "QuantizeLinear") in found
    assert kinds(model, "tensorrt", frozenset()) == kinds(model, "onnxruntime", frozenset())


def test_tensorrt_adds_a_residual_in_the_int8_kernel_and_onnxruntime_does_not():
    writer = Writer()
    x = writer.codes("x")
    made = writer.op("Relu", writer.op("Add", writer.qconv(x, 4, 4), x))
    model = writer.model(IMAGE, writer.codes(made))
    assert ("conv", "int8", "Conv", "Add", "Relu", "QuantizeLinear") in kinds(model, "tensorrt")
    conv = next(one for one in fuse(model, "tensorrt") if one.kind == "conv")
    assert (conv.read_bytes, conv.written_bytes) == (ELEMENTS + 144, ELEMENTS)  # x is read once
    assert ("conv", "int8", "Conv") in kinds(model, "onnxruntime")


def test_an_activation_without_a_kernel_on_codes_keeps_its_quantizers():
    writer = Writer()
    model = writer.model(IMAGE, writer.codes(writer.op("HardSwish", writer.codes("x"))))
    assert ("elementwise", "int8", "HardSwish", "QuantizeLinear") in kinds(model, "tensorrt")
    assert kinds(model, "onnxruntime")[1:4] == [
        ("elementwise", "fp32", "DequantizeLinear"),
        ("elementwise", "fp32", "HardSwish"),
        ("elementwise", "fp32", "QuantizeLinear"),
    ]


def test_operators_on_codes_with_the_shapes_of_their_twins():
    writer = Writer()
    scale, zero = writer.constant(()), writer.constant((), np.uint8)
    weight_zero = writer.constant((), np.int8)
    weight = writer.constant((6, 4, 3, 3), np.int8)
    conv = writer.op("QLinearConv", "x", scale, zero, weight, scale, weight_zero, scale, zero, pads=[1] * 4)
    added = writer.op("QLinearAdd", conv, scale, zero, conv, scale, zero, scale, zero, domain="com.microsoft")
    mean = writer.op(
        *("QLinearGlobalAveragePool", added, scale, zero, scale, zero),
        domain="com.microsoft",
        channels_last=0,
    )
    found = fuse(writer.model(IMAGE, mean, dtype=UINT8), "onnxruntime")
    assert [(one.kind, one.number_type) for one in found] == [
        ("conv", "int8"),
        ("elementwise", "int8"),
        ("pooling", "int8"),
    ]
    assert [one.macs for one in found] == [6 * 64 * 36, 0, 0]
    assert [one.read_bytes for one in found] == [ELEMENTS + 216, 384, 384]
    assert [one.written_bytes for one in found] == [384, 384, 6]


def test_half_precision():
    writer = Writer()
    weight = writer.constant((4, 4, 1, 1), np.float16)
    model = writer.model(IMAGE, writer.op("Conv", "x", weight), dtype=TensorProto.FLOAT16)
    (one,) = fuse(model, "tensorrt")
    assert (one.number_type, one.read_bytes, one.written_bytes) == ("fp16", 2 * (ELEMENTS + 16), 2 * ELEMENTS)


def test_an_unknown_operator_is_other():
    writer = Writer()
    made = writer.op("Mystery", writer.conv("x", 4, 4), domain="com.example")
    conv, mystery = fuse(writer.model(IMAGE, made), "onnxruntime")
    assert conv.kind == "conv"
    assert (mystery.kind, mystery.op_types, mystery.operations) == ("other", ("Mystery",), 0)


def test_a_weighted_operator_behind_an_unknown_one_has_no_known_work():
    writer = Writer()
    made = writer.conv(writer.op("Mystery", "x", domain="com.example"), 4, 4)
    assert [one.kind for one in fuse(writer.model(IMAGE, made), "onnxruntime")] == ["other", "other"]


def test_a_loop_is_other():
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["made"])], "then", [], [])
    body.output.append(helper.make_tensor_value_info("made", TensorProto.FLOAT, None))
    writer = Writer()
    made = writer.op("If", writer.op("Greater", "x", writer.constant(())), then_branch=body, else_branch=body)
    made = writer.op("Add", made, "x")
    assert "other" in [one.kind for one in fuse(writer.model(IMAGE, made), "onnxruntime")]


def test_a_free_axis_leaves_the_work_open():
    writer = Writer()
    model = writer.model(("batch", 4, "height", 8), writer.conv("x", 4, 4))
    with pytest.raises(UsageError) as caught:
        fuse(model, "onnxruntime")
    assert str(caught.value) == (
        "axis 2 of its input 'x' is free (height), and with it the work\n  try: write a size into the graph"
    )


def test_shapes_that_were_written_for_another_batch_are_forgotten():
    writer = Writer()
    conv = writer.conv("x", 4, 4)
    model = writer.model(IMAGE, writer.op("Relu", conv))
    model.graph.value_info.append(helper.make_tensor_value_info(conv, TensorProto.FLOAT, [7, 4, 8, 8]))
    (one,) = fuse(model, "onnxruntime")
    assert one.written_bytes == 4 * ELEMENTS


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_any_convolution_against_its_definition(data):
    draw = data.draw
    group = draw(st.integers(1, 3))
    c_in, c_out = group * draw(st.integers(1, 4)), group * draw(st.integers(1, 4))
    kernel, stride, dilation = ([draw(st.integers(1, most)) for _ in range(2)] for most in (4, 3, 2))
    pads = [draw(st.integers(0, 2)) for _ in range(4)]
    sides = [draw(st.integers(dilation[axis] * (kernel[axis] - 1) + 1, 14)) for axis in range(2)]
    writer = Writer()
    weight = writer.constant((c_out, c_in // group, *kernel))
    made = writer.op(*("Conv", "x", weight), group=group, strides=stride, dilations=dilation, pads=pads)
    model = writer.model((1, c_in, *sides), made)

    (one,) = fuse(model, "onnxruntime")
    places = 1
    for axis in range(2):
        first, last = -pads[axis], sides[axis] + pads[axis + 2] - dilation[axis] * (kernel[axis] - 1)
        places *= len(range(first, last, stride[axis]))
    products = kernel[0] * kernel[1] * (c_in // group)
    assert one.macs == places * c_out * products
    assert one.operations == 2 * one.macs
    assert one.written_bytes == 4 * places * c_out
    assert one.read_bytes == 4 * (c_in * sides[0] * sides[1] + c_out * products)
    assert one.width * places == one.macs // (group if one.kind == "conv" else 1)
