"""The emulated AVX2 against ONNX Runtime: its exact dialect, and its AVX2 kernels where they can be had."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekd.conversion.auditing.optimized import Optimized
from edgekd.conversion.avx2.emulate import Emulator, measure_saturation
from edgekd.conversion.avx2.operators import apply
from edgekd.conversion.avx2.risk import operators_at_risk
from edgekd.conversion.dialects import to_dialect
from edgekd.documents.parity import Parity
from edgekd.documents.saturation import SaturatedOperator, Saturation
from edgekd.documents.spec import Int8Dialect
from edgekd.errors import ConversionError
from edgekd.runtimes.onnxruntime import open_session, run_batches
from tests.conversion.avx2 import kernels
from tests.conversion.graphs import CASES, IMAGE, SCALE, Writer, inputs

Case = Callable[[], onnx.ModelProto]
cases = pytest.mark.parametrize("case", [pytest.param(make, id=name) for name, make in CASES.items()])


def u8(case: Case, dialect: Int8Dialect = "onnxruntime-u8") -> onnx.ModelProto:
    """The graph with its channels as they are, so that odd numbers of them stay odd."""
    return to_dialect(case(), dialect, {"pad_channels": False})


def with_small_weights(model: onnx.ModelProto, most: int = 63) -> onnx.ModelProto:
    """The graph with int8 weights in [-most, most]."""
    for tensor in model.graph.initializer:
        codes = numpy_helper.to_array(tensor)
        if codes.dtype == np.int8 and codes.ndim > 1:
            small = np.rint(codes * (most / 127)).astype(np.int8)
            tensor.CopyFrom(numpy_helper.from_array(small, tensor.name))
    return model


@cases
def test_with_exact_products_it_is_onnxruntime_bit_for_bit(case: Case) -> None:
    """uint8 weights are exact on any processor, so that this holds on one without VNNI, too."""
    x = inputs(case(), 24)
    expected = run_batches(open_session(u8(case, "onnxruntime-u8u8")), x)
    found = Emulator(u8(case)).run(x, saturate=False)
    np.testing.assert_array_equal(found.logits, expected)
    assert sum(one.saturated for one in found.operators) == 0


def odd_channels() -> onnx.ModelProto:
    """Three input channels and seven filters: pairs cross from one position of the kernel to the next."""
    write = Writer(1)
    return write.graph(write.quantize(write.conv(write.quantize("input"), 3, 7)), rank=4)


def grouped() -> onnx.ModelProto:
    write = Writer(2)
    x = write.block(write.quantize("input"), 3, 12)
    return write.graph(write.head(write.block(write.block(x, 12, 24, group=3), 24, 24, group=24), 24))


def strided() -> onnx.ModelProto:
    write = Writer(3)
    weight = write.weight(16, 3, 5, 3)
    sizes = {"kernel_shape": [5, 3], "pads": [2, 0, 1, 1], "strides": [2, 3], "dilations": [1, 2]}
    return write.graph(write.quantize(write.op("Conv", write.quantize("input"), weight, **sizes)), rank=4)


def products() -> onnx.ModelProto:
    """Every operator that multiplies matrices of codes, one after the other."""
    write = Writer(4)
    write.constant("u8", np.uint8(120))
    x = write.op("QuantizeLinear", "input", "scale", "u8")
    weights = [write.random.integers(-128, 128, (12, 12)).astype(np.int8) for _ in range(4)]
    names = [write.constant(f"codes_{number}", codes) for number, codes in enumerate(weights)]
    scales = write.constant("scales", write.random.uniform(0.001, 0.002, 12).astype(np.float32))
    zeros = write.constant("zeros", np.zeros(12, np.int8))
    bias = write.constant("bias", write.random.integers(-900, 900, 12).astype(np.int32))
    x = write.op("QLinearMatMul", x, "scale", "u8", names[0], scales, zeros, "scale", "u8")
    x = write.op("Reshape", x, write.constant("rows", np.array([-1, 12])))
    gemm = ("scale", "u8", names[1], scales, zeros, bias, "scale", "u8")
    x = write.op("QGemm", x, *gemm, domain="com.microsoft", transB=1, alpha=0.5)
    integers = write.op("MatMulInteger", x, names[2], "u8")
    floats = write.constant("floats", write.random.normal(size=12).astype(np.float32))
    to_float = (names[3], "scale", scales, "u8", zeros, floats)
    y = write.op("MatMulIntegerToFloat", x, *to_float, domain="com.microsoft")
    return write.graph(write.op("Add", write.op("Cast", integers, to=1), y), shape=(5, 12))


FURTHER = {"odd_channels": odd_channels, "grouped": grouped, "strided": strided}


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return kernels.compiled(tmp_path_factory.mktemp("avx2"))


@pytest.mark.parametrize("hidden", ["avx512", "vnni"])
def test_with_saturating_products_it_is_onnxruntimes_own_kernels(
    library: Path, hidden: kernels.Hidden, tmp_path: Path
) -> None:
    """AVX2's kernels, and those of AVX-512 without VNNI, run here on purpose."""
    graphs = {name: (u8(make), inputs(make(), 24)) for name, make in (CASES | FURTHER).items()}
    graphs["products"] = products(), 3 * inputs(products(), 24)
    saturated = dict.fromkeys(graphs, 0)
    found = {}
    for name, (model, x) in graphs.items():
        emulated = Emulator(model).run(x, saturate=True, batch_size=len(x))
        found[name] = emulated.logits
        saturated[name] = sum(one.saturated for one in emulated.operators)
    real = kernels.answers(library, hidden, graphs, tmp_path / "graphs")
    assert {name for name in graphs if not np.array_equal(found[name], real[name])} == set()
    assert all(saturated.values()), saturated


def test_the_exact_dialect_is_exact_on_avx2(library: Path, tmp_path: Path) -> None:
    """The same logits there as the int8 weights give with exact products."""
    graphs = {
        name: (u8(make, "onnxruntime-u8u8"), inputs(make(), 24)) for name, make in (CASES | FURTHER).items()
    }
    real = kernels.answers(library, "avx512", graphs, tmp_path / "graphs")
    for name, make in (CASES | FURTHER).items():
        exact = Emulator(u8(make)).run(graphs[name][1], saturate=False).logits
        np.testing.assert_array_equal(real[name], exact, err_msg=name)


@cases
def test_weights_of_seven_bits_never_saturate(case: Case) -> None:
    model = with_small_weights(u8(case))
    x = 4 * inputs(case(), 24)
    emulator = Emulator(model)
    found = emulator.run(x, saturate=True)
    assert [one.saturated for one in found.operators] == [0] * len(found.operators)
    assert found.operators
    np.testing.assert_array_equal(found.logits, emulator.run(x, saturate=False).logits)
    assert operators_at_risk(Optimized.of(model, threads=1)) == ()


def loud() -> onnx.ModelProto:
    """A convolution whose weights are as large as they can be: each pair of products saturates on white."""
    write = Writer()
    codes = write.constant("codes", np.full((16, 4, 1, 1), 127, np.int8))
    scales = write.constant("scales", np.full(16, 1e-4, np.float32))
    zeros = write.constant("zeros", np.zeros(16, np.int8))
    weight = write.op("DequantizeLinear", codes, scales, zeros, axis=0)
    x = write.quantize(write.op("Conv", write.quantize("input"), weight))
    return write.graph(write.op("Flatten", x, axis=1), shape=(4, 2, 3))


def test_saturation_is_counted_and_felt() -> None:
    x = np.stack([np.full((4, 2, 3), 20.0), np.full((4, 2, 3), -20.0)]).astype(np.float32)
    found = Emulator(u8(loud)).run(x, saturate=True)
    (operator,) = found.operators
    # White is code 255: both pairs of the 16 filters at 6 places saturate; black is code 0, and none does.
    assert (operator.pairs, operator.saturated, operator.share) == (2 * 2 * 16 * 6, 2 * 16 * 6, 0.5)
    assert (operator.name, operator.op_type) == ("/Conv_3", "QLinearConv")
    exact = Emulator(u8(loud)).run(x, saturate=False)
    # 127 steps of 0.08 in four channels with weights of 127 x 1e-4; clipped, 65534 of 129540 are left.
    white = 4 * 127 * 0.08 * 127e-4
    clipped = (2 * 32767 - 4 * 128 * 127) * 0.08 * 1e-4
    np.testing.assert_allclose(exact.logits[0], white, atol=0.05)
    np.testing.assert_allclose(found.logits[0], clipped, atol=0.05)
    np.testing.assert_array_equal(found.logits[1], exact.logits[1])


def test_what_saturation_costs() -> None:
    model, x = u8(CASES["residual"]), 3 * inputs(CASES["residual"](), 80)  # more than one batch
    emulator = Emulator(model)
    exact, found = (emulator.run(x, saturate=one).logits for one in (False, True))
    labels = exact.argmax(axis=1)
    cost = measure_saturation(model, x, labels)
    assert (cost.exact_top1, cost.top1) == (1.0, (found.argmax(axis=1) == labels).mean())
    assert cost.parity.top1_agreement == cost.top1
    assert cost.parity.max_difference == pytest.approx(np.abs(exact - found).max())
    assert cost.parity.max_difference > 0
    assert [one.name for one in cost.operators] == ["/Conv_3", "/Conv_8", "/Conv_13", "/Gemm_27"]
    pairs = sum(one.pairs for one in cost.operators)
    assert cost.share == sum(one.saturated for one in cost.operators) / pairs > 0
    # 27 products are 14 pairs, at 144 places in 8 channels; the head has 8 products in 4 pairs.
    assert (cost.operators[0].pairs, cost.operators[3].pairs) == (80 * 144 * 8 * 14, 80 * 10 * 4)
    halves = [Emulator(model).run(half, saturate=True).operators for half in (x[:40], x[40:])]
    for whole, *parts in zip(cost.operators, *halves, strict=True):
        assert whole.saturated == sum(part.saturated for part in parts)
    unlabeled = measure_saturation(model, x)
    assert (unlabeled.exact_top1, unlabeled.top1, unlabeled.parity) == (None, None, cost.parity)


def test_operators_that_are_exact_are_the_runtimes() -> None:
    exact, x = u8(CASES["residual"], "onnxruntime-u8u8"), 3 * inputs(CASES["residual"](), 8)
    found = Emulator(exact).run(x, saturate=True)
    assert found.operators == ()  # uint8 weights: there is nothing to saturate
    np.testing.assert_array_equal(found.logits, run_batches(open_session(exact), x))


def test_a_convolution_with_its_channels_first() -> None:
    """As it is written, and as the runtime leaves it where it has no reason to move the channels."""
    write = Writer()
    write.constant("u8", np.uint8(120))
    codes = write.constant("codes", write.random.integers(-63, 64, (6, 3, 3, 3)).astype(np.int8))
    scales = write.constant("scales", write.random.uniform(0.001, 0.01, 6).astype(np.float32))
    zeros = write.constant("zeros", np.zeros(6, np.int8))
    bias = write.constant("bias", write.random.integers(-900, 900, 6).astype(np.int32))
    x = write.op("QuantizeLinear", "input", "scale", "u8")
    y = write.op(
        "QLinearConv", x, "scale", "u8", codes, scales, zeros, "scale", "u8", bias, pads=[1, 0, 1, 2]
    )
    graph = write.graph(write.op("DequantizeLinear", y, "scale", "u8"), rank=4)
    node, pictures = graph.graph.node[1], inputs(graph, 5)
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    values[x] = np.rint(pictures / np.float32(SCALE)).clip(-120, 135).astype(np.int16) + 120
    values[x] = values[x].astype(np.uint8)
    answer = apply(node, [values[name] for name in node.input], saturate=True)
    expected = run_batches(open_session(graph, as_written=True), pictures)
    assert answer.y.dtype == np.uint8
    np.testing.assert_array_equal((answer.y.astype(np.float32) - 120) * np.float32(SCALE), expected)


def test_a_graph_that_is_only_half_quantized() -> None:
    """Float convolutions in the runtime's own layout, and operators on codes, side by side."""

    def half() -> onnx.ModelProto:
        write = Writer()
        x = write.block(write.quantize("input"), 3, 16)
        plain = write.op("Conv", x, write.float_weight(16, 16, 3, 3), pads=[1] * 4, kernel_shape=[3, 3])
        x = write.block(write.quantize(write.op("Sigmoid", plain)), 16, 16)
        return write.graph(write.head(x, 16))

    x = inputs(half(), 8)
    found = Emulator(u8(half)).run(x, saturate=False)
    expected = run_batches(open_session(u8(half, "onnxruntime-u8u8")), x)
    np.testing.assert_array_equal(found.logits, expected)
    assert [one.name for one in found.operators] == ["/Conv_3", "/Conv_12", "/Gemm_23"]


def test_a_graph_with_a_batch_of_its_own() -> None:
    model = u8(CASES["residual"])
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    x = inputs(model, 6)
    expected = Emulator(u8(CASES["residual"])).run(x, saturate=True)
    np.testing.assert_array_equal(Emulator(model).run(x, saturate=True).logits, expected.logits)


def dynamic() -> onnx.ModelProto:
    """Activations that are quantized while they run, by an operator that edgekd does not know inside."""
    write = Writer()
    codes = write.constant("codes", write.random.integers(-128, 128, (12, 10)).astype(np.int8))
    scale = write.constant("weight_scale", np.float32(0.01))
    y = write.op("DynamicQuantizeMatMul", "input", codes, scale, domain="com.microsoft")
    return write.graph(y, shape=(12,))


def test_what_is_not_emulated_is_named() -> None:
    found = Emulator(dynamic()).run(inputs(dynamic()), saturate=True)
    assert (found.operators, found.not_emulated) == ((), ("/DynamicQuantizeMatMul_0",))
    assert operators_at_risk(Optimized.of(dynamic(), threads=1)) == ("/DynamicQuantizeMatMul_0",)


def test_operators_at_risk() -> None:
    at_risk = operators_at_risk(Optimized.of(u8(CASES["depthwise"]), threads=1))
    assert at_risk == ("/Conv_3", "/Conv_13", "/Gemm_24")  # and not /Conv_8, which is depthwise
    exact = u8(CASES["depthwise"], "onnxruntime-u8u8")
    assert operators_at_risk(Optimized.of(exact, threads=1)) == ()


@pytest.mark.parametrize(("dtype", "at_risk"), [(np.uint8, ("/MatMulInteger_1",)), (np.int8, ())])
def test_int8_activations_are_multiplied_exactly(dtype: type, at_risk: tuple[str, ...]) -> None:
    write = Writer()
    codes = write.op("QuantizeLinear", "input", "scale", write.constant("zero_point", dtype(3)))
    weights = write.constant("codes", np.full((12, 10), 127, np.int8))
    y = write.op("Cast", write.op("MatMulInteger", codes, weights, "zero_point"), to=1)
    model = write.graph(y, shape=(12,))
    assert operators_at_risk(Optimized.of(model, threads=1)) == at_risk
    found = Emulator(model).run(99 * np.abs(inputs(model, 4)), saturate=True)
    assert tuple(one.name for one in found.operators) == at_risk
    assert all(one.saturated for one in found.operators)


def test_a_graph_with_a_subgraph_is_refused() -> None:
    write = Writer()
    positive = write.op(
        "Greater", write.op("ReduceMax", "input", keepdims=0), write.constant("z", np.float32(0))
    )
    branches = {}
    for name in ("then_branch", "else_branch"):
        node = helper.make_node("Relu" if name == "then_branch" else "Neg", ["input"], [name])
        output = helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        branches[name] = helper.make_graph([node], name, [], [output])
    model = write.graph(write.op("If", positive, **branches), shape=IMAGE, rank=4)
    with pytest.raises(ConversionError) as caught:
        Emulator(model)
    assert str(caught.value) == "has an If, a Loop or a Scan, which are not emulated"


def test_inputs_of_another_shape_are_refused() -> None:
    with pytest.raises(ConversionError, match="ONNX Runtime cannot run the graph: "):
        Emulator(u8(CASES["residual"])).run(np.zeros((2, 5, 12, 12), np.float32), saturate=True)


def test_a_graph_of_two_inputs_is_refused() -> None:
    model = u8(CASES["residual"])
    model.graph.input.append(helper.make_tensor_value_info("other", onnx.TensorProto.FLOAT, [1]))
    model.graph.node.append(helper.make_node("Identity", ["other"], ["copy"]))
    model.graph.output.append(helper.make_tensor_value_info("copy", onnx.TensorProto.FLOAT, [1]))
    with pytest.raises(ConversionError) as caught:
        Emulator(model)
    assert str(caught.value) == "has 2 inputs; graphs of one input are emulated"


def test_a_stack_of_weights_is_not_emulated() -> None:
    """Several matrices in one weight: the runtime multiplies them too, and here that is not followed."""
    write = Writer()
    zero = write.constant("zero_point", np.uint8(3))
    codes = write.op("QuantizeLinear", "input", "scale", zero)
    weights = write.constant("codes", np.full((2, 12, 10), 127, np.int8))
    y = write.op("Cast", write.op("MatMulInteger", codes, weights, zero), to=1)
    model = write.graph(
        write.op("ReduceSum", y, write.constant("axis", np.array([0])), keepdims=0), shape=(12,)
    )
    found = Emulator(model).run(inputs(model, 4), saturate=True)
    assert (found.operators, found.not_emulated) == ((), ("/MatMulInteger_1",))


@pytest.mark.parametrize(
    ("saturated", "top1", "summary"),
    [
        (
            (30, 4),
            0.825,
            "on AVX2 without VNNI 1.70% of the products saturate, most in /Conv_3 (3.00%): "
            "12.50% of 40 answers change (top-1 82.50%, exact 90.00%)",
        ),
        ((0, 0), None, "on AVX2 without VNNI no product saturates: 12.50% of 40 answers change"),
    ],
)
def test_a_line_for_a_report(saturated: tuple[int, int], top1: float | None, summary: str) -> None:
    parity = Parity(count=40, top1_agreement=0.875, mean_difference=0.1, max_difference=2, logit_std=1)
    operators = tuple(
        SaturatedOperator(name=name, op_type="QLinearConv", pairs=1000, saturated=count)
        for name, count in zip(("/Conv_3", "/Conv_8"), saturated, strict=True)
    )
    exact = None if top1 is None else 0.9
    assert Saturation(operators=operators, parity=parity, top1=top1, exact_top1=exact).summary == summary
